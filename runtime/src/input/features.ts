import { FieldloopError, type WindowFeatures } from "@fieldloop/protocol";
import FFT from "fft.js";
import { featureFrames } from "./extent.js";
import { melFilters, type MelFilter } from "./mel.js";

/**
 * Spectrogram, mel or MFCC of a window of sound. Frames begin at sample 0 and every `frameHop` after it, whole ones only
 * (no padding at the edges: torchaudio and librosa with `center=false`, `tf.signal.stft`). Window functions are periodic,
 * as those of torch, librosa and TensorFlow are. The DCT-II is orthonormal (`norm="ortho"`).
 */
export class FeatureExtractor {
  readonly frames: number;
  /** Values of one frame. */
  readonly size: number;
  readonly #features: WindowFeatures;
  readonly #window: Float64Array;
  readonly #fft: FFT;
  readonly #frame: Float64Array;
  readonly #spectrum: Float64Array;
  readonly #power: Float64Array;
  readonly #filters: readonly MelFilter[] | undefined;
  readonly #bands: Float64Array;
  /** Rows of the DCT, `coefficients × bins`. */
  readonly #cosines: readonly Float64Array[] | undefined;

  /** @param length samples of a window. @throws FieldloopError `manifest_invalid` where the settings contradict each other */
  constructor(name: string, features: WindowFeatures, length: number, sampleRateHz: number) {
    check(name, features, length, sampleRateHz);
    const { kind, frameLength, fftLength, mel } = features;
    this.#features = features;
    this.frames = featureFrames(features, length);
    this.#window = windowFunction(features.window, frameLength);
    this.#fft = new FFT(fftLength);
    this.#frame = new Float64Array(fftLength);
    this.#spectrum = new Float64Array(2 * fftLength);
    this.#power = new Float64Array(fftLength / 2 + 1);
    this.#filters = kind === "spectrogram" ? undefined : melFilters(mel!, fftLength, sampleRateHz);
    this.#bands = this.#filters === undefined ? this.#power : new Float64Array(this.#filters.length);
    this.#cosines =
      kind === "mfcc" ? cosineTransform(features.coefficients ?? mel!.bins, mel!.bins) : undefined;
    this.size = this.#cosines?.length ?? this.#bands.length;
  }

  /** `frames × size` values, or `size × frames` where the layout says so. */
  extract(samples: Float32Array): Float32Array {
    const { frames, size } = this;
    const out = new Float32Array(frames * size);
    const byTime = this.#features.layout === "time-feature";
    for (let frame = 0; frame < frames; frame++) {
      const values = this.#valuesOf(samples, frame * this.#features.frameHop);
      const start = byTime ? frame * size : frame;
      const step = byTime ? 1 : frames;
      for (let at = 0; at < size; at++) out[start + at * step] = values[at]!;
    }
    return out;
  }

  #valuesOf(samples: Float32Array, from: number): Float64Array {
    this.#measurePower(samples, from);
    const bands = this.#bands;
    if (this.#filters !== undefined) applyFilters(this.#filters, this.#power, bands);
    takeLogarithm(bands, this.#features);
    if (this.#cosines === undefined) return bands;
    return Float64Array.from(this.#cosines, (row) => {
      let sum = 0;
      for (let at = 0; at < row.length; at++) sum += row[at]! * bands[at]!;
      return sum;
    });
  }

  #measurePower(samples: Float32Array, from: number): void {
    const frame = this.#frame;
    const window = this.#window;
    const power = this.#power;
    const spectrum = this.#spectrum;
    for (let at = 0; at < window.length; at++) frame[at] = samples[from + at]! * window[at]!;
    this.#fft.realTransform(spectrum, frame);
    const isMagnitude = this.#features.power === 1;
    for (let bin = 0; bin < power.length; bin++) {
      const square = spectrum[2 * bin]! ** 2 + spectrum[2 * bin + 1]! ** 2;
      power[bin] = isMagnitude ? Math.sqrt(square) : square;
    }
  }
}

function check(name: string, features: WindowFeatures, length: number, sampleRateHz: number): void {
  const { kind, frameLength, fftLength, mel, coefficients } = features;
  const problems = [
    [frameLength > length, `frameLength ${frameLength}, a window has ${length} samples`],
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
  ] as const;
  const problem = problems.find(([is]) => is)?.[1];
  if (problem === undefined) return;
  throw new FieldloopError("manifest_invalid", `Prepare window "${name}": ${problem}`);
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

/** Decibel: 10·log10 of powers, 20·log10 of magnitudes. */
function takeLogarithm(values: Float64Array, { log, floor, power }: WindowFeatures): void {
  if (log === "none") return;
  const scale = { natural: 1, log10: Math.LOG10E, decibel: (power === 1 ? 20 : 10) * Math.LOG10E }[log];
  for (let at = 0; at < values.length; at++) values[at] = scale * Math.log(Math.max(values[at]!, floor));
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
