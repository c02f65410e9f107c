import { FieldloopError, type WindowFeatures } from "@fieldloop/protocol";
import FFT from "fft.js";
import { featureFrames, paddingLength } from "./extent.js";
import { melFilters, type MelFilter } from "./mel.js";

/**
 * Spectrogram, mel or MFCC of a window of sound. Frames begin at sample 0 and every `frameHop` after it, whole ones only, as
 * `tf.signal.stft` and Kaldi cut them; torch.stft, torchaudio and librosa place the window function in the `centre` of the transform, and
 * unless `center=False` pad the ends (`padding`). Window functions are periodic, as those of torch, librosa and TensorFlow are. The DCT-II
 * is orthonormal (`norm="ortho"`).
 */
export class FeatureExtractor {
  readonly frames: number;
  /** Values of one frame. */
  readonly size: number;
  readonly #features: WindowFeatures;
  readonly #window: Float64Array;
  /** Samples of a transform before the window function begins. */
  readonly #lead: number;
  readonly #fft: FFT;
  readonly #frame: Float64Array;
  readonly #spectrum: Float64Array;
  readonly #power: Float64Array;
  readonly #filters: readonly MelFilter[] | undefined;
  /** Of all frames, one after the other. */
  readonly #bands: Float64Array;
  readonly #bandCount: number;
  /** Rows of the DCT, `coefficients × bins`. */
  readonly #cosines: readonly Float64Array[] | undefined;

  /** @param length samples of a window. @throws FieldloopError `manifest_invalid` where the settings contradict each other */
  constructor(name: string, features: WindowFeatures, length: number, sampleRateHz: number) {
    check(name, features, length, sampleRateHz);
    const { kind, frameLength, fftLength, mel } = features;
    this.#features = features;
    this.frames = featureFrames(features, length);
    this.#window = windowFunction(features.window, frameLength);
    this.#lead = features.alignment === "centre" ? Math.floor((fftLength - frameLength) / 2) : 0;
    this.#fft = new FFT(fftLength);
    this.#frame = new Float64Array(fftLength);
    this.#spectrum = new Float64Array(2 * fftLength);
    this.#power = new Float64Array(fftLength / 2 + 1);
    this.#filters = kind === "spectrogram" ? undefined : melFilters(mel!, fftLength, sampleRateHz);
    this.#bandCount = this.#filters?.length ?? this.#power.length;
    this.#bands = new Float64Array(this.frames * this.#bandCount);
    this.#cosines =
      kind === "mfcc" ? cosineTransform(features.coefficients ?? mel!.bins, mel!.bins) : undefined;
    this.size = this.#cosines?.length ?? this.#bandCount;
  }

  /** `frames × size` values, or `size × frames` where the layout says so. */
  extract(samples: Float32Array): Float32Array {
    const { frames, size } = this;
    const { frameHop, layout, mean = 0, std = 1 } = this.#features;
    const padded = padEnds(samples, this.#features);
    for (let frame = 0; frame < frames; frame++) this.#measureBands(padded, frame * frameHop, frame);
    takeLogarithm(this.#bands, this.#features);
    const out = new Float32Array(frames * size);
    const byTime = layout === "time-feature";
    for (let frame = 0; frame < frames; frame++) {
      const values = this.#valuesOf(frame);
      const start = byTime ? frame * size : frame;
      const step = byTime ? 1 : frames;
      for (let at = 0; at < size; at++) out[start + at * step] = (values[at]! - mean) / std;
    }
    return out;
  }

  #bandsOf(frame: number): Float64Array {
    return this.#bands.subarray(frame * this.#bandCount, (frame + 1) * this.#bandCount);
  }

  #valuesOf(frame: number): Float64Array {
    const bands = this.#bandsOf(frame);
    if (this.#cosines === undefined) return bands;
    return Float64Array.from(this.#cosines, (row) => {
      let sum = 0;
      for (let at = 0; at < row.length; at++) sum += row[at]! * bands[at]!;
      return sum;
    });
  }

  #measureBands(samples: Float32Array, from: number, at: number): void {
    this.#measurePower(samples, from);
    if (this.#filters === undefined) this.#bandsOf(at).set(this.#power);
    else applyFilters(this.#filters, this.#power, this.#bandsOf(at));
  }

  #measurePower(samples: Float32Array, from: number): void {
    const frame = this.#frame;
    const window = this.#window;
    const power = this.#power;
    const spectrum = this.#spectrum;
    // Where in the transform the samples lie turns phases only, which nothing here looks at.
    const begin = from + this.#lead;
    for (let at = 0; at < window.length; at++) frame[at] = samples[begin + at]! * window[at]!;
    this.#fft.realTransform(spectrum, frame);
    const isMagnitude = this.#features.power === 1;
    for (let bin = 0; bin < power.length; bin++) {
      const square = spectrum[2 * bin]! ** 2 + spectrum[2 * bin + 1]! ** 2;
      power[bin] = isMagnitude ? Math.sqrt(square) : square;
    }
  }
}

function check(name: string, features: WindowFeatures, length: number, sampleRateHz: number): void {
  const { kind, frameLength, fftLength, mel, coefficients, log, padding } = features;
  const padded = paddingLength(features);
  const ofDecibels = features.reference !== undefined || features.rangeDb !== undefined;
  const problems = [
    [
      featureFrames(features, length) < 1,
      `frames of ${features.alignment === "centre" ? `fftLength ${fftLength}` : `frameLength ${frameLength}`}, a window has ${length} samples`,
    ],
    [
      padding === "reflect" && padded >= length,
      `padding mirrors ${padded} samples at each end, a window has ${length}`,
    ],
    [
      padded > 0 && features.alignment !== "centre" && frameLength !== fftLength,
      `padding of frames of ${frameLength} samples in transforms of ${fftLength}, wanted alignment "centre" with it`,
    ],
    [(fftLength & (fftLength - 1)) !== 0, `fftLength ${fftLength}, wanted a power of two`],
    [fftLength < frameLength, `fftLength ${fftLength}, wanted at least frameLength ${frameLength}`],
    [kind !== "spectrogram" && mel === undefined, `${kind} features without mel`],
    [mel !== undefined && mel.lowHz >= mel.highHz, `mel from ${mel?.lowHz} to ${mel?.highHz} Hz`],
    [
      mel !== undefined && mel.highHz > sampleRateHz / 2,
      `mel up to ${mel?.highHz} Hz, at most half of ${sampleRateHz} Hz can be seen`,
    ],
    [
      coefficients !== undefined && mel !== undefined && coefficients > mel.bins,
      `${coefficients} coefficients of ${mel?.bins} mel bins`,
    ],
    [ofDecibels && log !== "decibel", `reference or rangeDb with log "${log}", wanted "decibel"`],
  ] as const;
  const problem = problems.find(([is]) => is)?.[1];
  if (problem === undefined) return;
  throw new FieldloopError("manifest_invalid", `Prepare window "${name}": ${problem}`);
}

/** The samples with half a transform more at each end: zeros, or mirrored at the first and the last sample without repeating it. */
function padEnds(samples: Float32Array, features: WindowFeatures): Float32Array {
  const width = paddingLength(features);
  if (width === 0) return samples;
  const padded = new Float32Array(samples.length + 2 * width);
  padded.set(samples, width);
  if (features.padding === "zero") return padded;
  const last = samples.length - 1;
  for (let at = 1; at <= width; at++) {
    padded[width - at] = samples[at]!;
    padded[width + last + at] = samples[last - at]!;
  }
  return padded;
}

/** Periodic form: one value more would be the first again. */
function windowFunction(kind: WindowFeatures["window"], length: number): Float64Array {
  const [offset, swing] = { hann: [0.5, 0.5], hamming: [0.54, 0.46], rectangular: [1, 0] }[kind] as [
    number,
    number,
  ];
  return Float64Array.from({ length }, (_, at) => offset - swing * Math.cos((2 * Math.PI * at) / length));
}

function applyFilters(filters: readonly MelFilter[], power: Float64Array, into: Float64Array): void {
  for (let band = 0; band < filters.length; band++) {
    const { start, weights } = filters[band]!;
    let sum = 0;
    for (let at = 0; at < weights.length; at++) sum += weights[at]! * power[start + at]!;
    into[band] = sum;
  }
}

/** Decibel: 10·log10 of powers, 20·log10 of magnitudes; of one, or of the window's highest (librosa's `power_to_db`). */
function takeLogarithm(values: Float64Array, features: WindowFeatures): void {
  const { log, floor, power, logOffset = 0, reference, rangeDb } = features;
  if (log === "none") return;
  const scale = { natural: 1, log10: Math.LOG10E, decibel: (power === 1 ? 20 : 10) * Math.LOG10E }[log];
  let highest = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < values.length; at++) {
    const value = scale * Math.log(Math.max(values[at]! + logOffset, floor));
    values[at] = value;
    if (value > highest) highest = value;
  }
  if (reference === undefined && rangeDb === undefined) return;
  const from = reference === "highest" ? highest : 0;
  const least = rangeDb === undefined ? Number.NEGATIVE_INFINITY : highest - rangeDb;
  for (let at = 0; at < values.length; at++) values[at] = Math.max(values[at]!, least) - from;
}

/** The first rows of the orthonormal DCT-II. */
function cosineTransform(coefficients: number, bins: number): Float64Array[] {
  return Array.from({ length: coefficients }, (_, k) => {
    const scale = Math.sqrt((k === 0 ? 1 : 2) / bins);
    return Float64Array.from(
      { length: bins },
      (_unused, at) => scale * Math.cos((Math.PI * k * (2 * at + 1)) / (2 * bins)),
    );
  });
}
