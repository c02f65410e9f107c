import { inputSchema, type WindowFeatures, type WindowInput } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { FeatureExtractor } from "./features.js";
import { hertzToMel, melFilters, melFrequencies, melToHertz } from "./mel.js";
import { WindowPreparer } from "./window.js";

const windowInput = (features: object | undefined, more: object = {}): WindowInput => {
  const draft = { kind: "window", name: "w", length: 400, hop: 400, sampleRateHz: 16_000, ...more };
  const input = inputSchema.parse({
    normalization: "none",
    dims: [],
    ...draft,
    ...(features === undefined ? {} : { features }),
  });
  if (input.kind !== "window") throw new Error("not a window");
  return input;
};
const featuresOf = (features: object): WindowFeatures => windowInput(features).features!;

const signal = (length: number): Float32Array =>
  Float32Array.from({ length }, (_, at) => Math.sin(at * 0.31) + 0.5 * Math.cos(at * 1.7 + 1) + 0.01 * at);

/** |X|² of one frame by the definition of the Fourier transform. */
function naivePower(
  samples: Float32Array,
  from: number,
  window: readonly number[],
  fftLength: number,
): number[] {
  return Array.from({ length: fftLength / 2 + 1 }, (_, bin) => {
    let real = 0;
    let imaginary = 0;
    window.forEach((weight, at) => {
      const angle = (-2 * Math.PI * bin * at) / fftLength;
      real += weight * samples[from + at]! * Math.cos(angle);
      imaginary += weight * samples[from + at]! * Math.sin(angle);
    });
    return real ** 2 + imaginary ** 2;
  });
}

const WINDOWS = {
  hann: (at: number, length: number) => Math.sin((Math.PI * at) / length) ** 2,
  hamming: (at: number, length: number) => 0.54 - 0.46 * Math.cos((2 * Math.PI * at) / length),
  rectangular: () => 1,
} as const;

function expectNear(actual: ArrayLike<number>, wanted: readonly number[], relative = 1e-5): void {
  expect(actual.length).toBe(wanted.length);
  wanted.forEach((value, at) =>
    expect(Math.abs(actual[at]! - value), `value ${at}`).toBeLessThanOrEqual(
      relative * (1 + Math.abs(value)),
    ),
  );
}

describe("spectrogram, against the definition of the Fourier transform", () => {
  const cases = (["hann", "hamming", "rectangular"] as const).flatMap((window) =>
    ([1, 2] as const).map((power) => [window, power] as const),
  );
  it.each(cases)("%s window, power %d", (window, power) => {
    const features = featuresOf({
      kind: "spectrogram",
      frameLength: 50,
      frameHop: 20,
      fftLength: 64,
      window,
      power,
      log: "none",
    });
    const samples = signal(120);
    const extractor = new FeatureExtractor("w", features, samples.length, 16_000);
    expect([extractor.frames, extractor.size]).toEqual([4, 33]);
    const weights = Array.from({ length: 50 }, (_, at) => WINDOWS[window](at, 50));
    const wanted = [0, 20, 40, 60]
      .flatMap((from) => naivePower(samples, from, weights, 64))
      .map((value) => (power === 2 ? value : Math.sqrt(value)));
    expectNear(extractor.extract(samples), wanted);
  });
  it("takes logarithms above its floor, in each base, and lays features out by time", () => {
    const base = { kind: "spectrogram", frameLength: 16, frameHop: 16, fftLength: 16, floor: 1e-3 };
    const samples = signal(32).fill(0, 16);
    const extract = (more: object) => {
      const extractor = new FeatureExtractor("w", featuresOf({ ...base, ...more }), 32, 16_000);
      return [...extractor.extract(samples)];
    };
    const plain = extract({ log: "none" });
    const by = (log: (value: number) => number) => plain.map((value) => log(Math.max(value, 1e-3)));
    expectNear(extract({ log: "natural" }), by(Math.log));
    expectNear(extract({ log: "log10" }), by(Math.log10));
    expectNear(
      extract({ log: "decibel" }),
      by((value) => 10 * Math.log10(value)),
    );
    expect(extract({ log: "log10" })[9]).toBeCloseTo(-3, 5);
    const turned = extract({ log: "none", layout: "feature-time" });
    plain.forEach((value, at) => expect(turned[(at % 9) * 2 + Math.floor(at / 9)]).toBe(value));
    const root = extract({ log: "decibel", power: 1, floor: 1e-3 });
    expect(root[0]).toBeCloseTo(20 * Math.log10(Math.sqrt(plain[0]!)), 4);
  });
});

describe("mel", () => {
  it("scales are those that librosa documents", () => {
    expectNear(
      [110, 220, 440].map((hertz) => hertzToMel(hertz, "slaney")),
      [1.65, 3.3, 6.6],
    );
    expectNear(
      [1, 2, 3, 4, 5].map((mel) => melToHertz(mel, "slaney")),
      [66.6667, 133.3333, 200, 266.6667, 333.3333],
    );
    expect(hertzToMel(1000, "htk")).toBeCloseTo(999.9855, 3);
    for (const scale of ["htk", "slaney"] as const) {
      for (const hertz of [0, 60, 999, 1001, 7_999]) {
        expect(melToHertz(hertzToMel(hertz, scale), scale)).toBeCloseTo(hertz, 6);
      }
    }
    expectNear(melFrequencies(3, 0, 1_000, "slaney"), [0, 500, 1_000]);
  });
  it("filters are those of librosa.filters.mel(sr=22050, n_fft=2048)", () => {
    const mel = { bins: 128, lowHz: 0, highHz: 11_025, scale: "slaney", norm: "slaney" } as const;
    const filters = melFilters(mel, 2048, 22_050);
    const row = (band: number, count: number) =>
      Array.from({ length: count }, (_, bin) => {
        const { start, weights } = filters[band]!;
        return weights[bin - start] ?? 0;
      });
    expectNear(row(0, 6), [0, 0.016182853, 0.032365706, 0.028990088, 0.012807235, 0], 1e-7);
    expectNear(
      row(1, 9),
      [0, 0, 0, 0.009779236, 0.025962089, 0.035393705, 0.019210852, 0.003027999, 0],
      1e-7,
    );
  });
  it("values are filters over the power, and MFCC their orthonormal DCT-II", () => {
    const mel = { bins: 10, lowHz: 20, highHz: 4_000, scale: "htk" };
    const base = { frameLength: 64, frameHop: 32, fftLength: 64, mel };
    const samples = signal(64);
    const melOf = featuresOf({ kind: "mel", ...base });
    const logs = new FeatureExtractor("w", melOf, 64, 8_000).extract(samples);
    const weights = Array.from({ length: 64 }, (_, at) => WINDOWS.hann(at, 64));
    const power = naivePower(samples, 0, weights, 64);
    const filters = melFilters(melOf.mel!, 64, 8_000);
    const wanted = filters.map(({ start, weights: shape }) => {
      const sum = shape.reduce((total, weight, at) => total + weight * power[start + at]!, 0);
      return Math.log(Math.max(sum, 1e-6));
    });
    expectNear(logs, wanted);
    const mfcc = featuresOf({ kind: "mfcc", coefficients: 4, ...base });
    const cosines = [0, 1, 2, 3].map(
      (k) =>
        Math.sqrt((k === 0 ? 1 : 2) / 10) *
        wanted.reduce((sum, value, at) => sum + value * Math.cos((Math.PI * k * (at + 0.5)) / 10), 0),
    );
    expectNear(new FeatureExtractor("w", mfcc, 64, 8_000).extract(samples), cosines);
  });
});

describe("features of a window", () => {
  const speech = {
    kind: "mel",
    frameLength: 100,
    frameHop: 50,
    fftLength: 128,
    mel: { bins: 8, lowHz: 0, highHz: 8_000 },
  };
  it("include its context and have the declared dims and element type", () => {
    const input = windowInput(speech, {
      context: 100,
      dims: [1, 1, 0, 8],
      elementType: "int8",
      quantization: { scale: 0.1, zeroPoint: -3 },
    });
    const preparer = new WindowPreparer(input);
    expect(preparer.dims).toEqual([1, 1, 9, 8]);
    const { tensor, context } = preparer.prepare(signal(400));
    expect(tensor).toMatchObject({ type: "int8", dims: [1, 1, 9, 8] });
    expect(context).toEqual(signal(400).slice(300));
    const float = new WindowPreparer(windowInput(speech, { context: 100 })).prepare(signal(400)).tensor;
    [...(float.data as Float32Array)].forEach((value, at) => {
      const code = Math.min(Math.max(Math.round(value / 0.1) - 3, -128), 127);
      expect(Math.abs(Number(tensor.data[at]) - code)).toBeLessThanOrEqual(1);
    });
  });
  it.each([
    ["an FFT of no power of two", { fftLength: 120 }, /power of two/],
    ["an FFT shorter than a frame", { fftLength: 64 }, /at least frameLength/],
    ["frames longer than the window", { frameLength: 500, fftLength: 512 }, /a window has 400 samples/],
    ["mel without its filters", { mel: undefined }, /without mel/],
    ["frequencies that cannot be seen", { mel: { bins: 8, lowHz: 0, highHz: 9_000 } }, /half of 16000/],
    ["bands upside down", { mel: { bins: 8, lowHz: 900, highHz: 800 } }, /from 900 to 800/],
    ["more coefficients than bands", { kind: "mfcc", coefficients: 9 }, /9 coefficients of 8/],
  ])("refuse %s", (_, more, message) => {
    expect(() => new WindowPreparer(windowInput({ ...speech, ...more }))).toThrow(message);
  });
  it("refuse several channels, text and dims of another size", () => {
    expect(() => new WindowPreparer(windowInput(speech, { channels: 2 }))).toThrow(/2 channels/);
    expect(() => new WindowPreparer(windowInput(undefined, { elementType: "string" }))).toThrow(/string/);
    expect(() => new WindowPreparer(windowInput(undefined, { dims: [1, 399] }))).toThrow(
      expect.objectContaining({ code: "manifest_invalid" }),
    );
  });
});

/** Figures of librosa 0.11.0 for this signal: stft(n_fft=64, hop_length=40, win_length=50), the first four values of each frame. */
describe("frames in the centre of their transform, against librosa", () => {
  const base = {
    ...{
      kind: "spectrogram",
      frameLength: 50,
      frameHop: 40,
      fftLength: 64,
      alignment: "centre",
      log: "none",
    },
  };
  const mel = { bins: 4, lowHz: 100, highHz: 8000 };
  const firstOf = (features: object): number[][] => {
    const extractor = new FeatureExtractor("w", featuresOf({ ...base, ...features }), 120, 16_000);
    const values = extractor.extract(signal(120));
    return Array.from({ length: extractor.frames }, (_, frame) => [
      ...values.subarray(frame * extractor.size, frame * extractor.size + 4),
    ]);
  };
  const whole = [
    [102.131, 47.3103, 64.0865, 155.141],
    [408.306, 171.735, 59.6239, 158.486],
  ];
  it.each<[string, object, number[][]]>([
    [
      "whole ones only (center=False)",
      {},
      [
        [68.8971, 22.9548, 33.8318, 155.796],
        [331.34, 134.056, 33.9641, 157.425],
      ],
    ],
    [
      "mirrored ends (pad_mode=reflect)",
      { padding: "reflect" },
      [[73.7298, 91.2232, 77.3376, 4.51473], ...whole, [565.773, 151.407, 48.7583, 119.861]],
    ],
    [
      "zeros at the ends (pad_mode=constant)",
      { padding: "zero" },
      [[19.6105, 25.5611, 36.7529, 39.4896], ...whole, [115.813, 96.9751, 56.6165, 23.3533]],
    ],
    [
      "decibels of the highest (power_to_db(ref=np.max, top_db=12)) of htk mels",
      {
        kind: "mel",
        mel,
        padding: "reflect",
        log: "decibel",
        reference: "highest",
        rangeDb: 12,
        floor: 1e-10,
      },
      [
        [-3.60686, -5.45042, -10.6386, -6.89655],
        [-0.640324, -5.16299, -12, -6.43254],
        [0, -5.1381, -12, -6.43253],
        [-1.59391, -7.51564, -11.8723, -6.73858],
      ],
    ],
    [
      "mfcc of them (power_to_db(top_db=12))",
      { kind: "mfcc", mel, padding: "reflect", log: "decibel", rangeDb: 12, floor: 1e-10 },
      [
        [35.3273, 3.55299, 2.79279, -2.49914],
        [36.5056, 5.63403, 5.04506, -2.89913],
        [36.8382, 6.05907, 5.35278, -2.74212],
        [34.7633, 4.53983, 5.52773, -1.454],
      ],
    ],
  ])("%s", (_, features, wanted) => {
    expectNear(firstOf(features).flat(), wanted.flat(), 2e-5);
  });
  it("scales features last of all", () => {
    const plain = firstOf({ log: "natural", floor: 1e-6 }).flat();
    const scaled = firstOf({ log: "natural", floor: 1e-6, mean: 4, std: 2 }).flat();
    expectNear(
      scaled,
      plain.map((value) => (value - 4) / 2),
    );
    const offset = firstOf({ log: "natural", logOffset: 5 }).flat();
    expectNear(
      offset,
      firstOf({})
        .flat()
        .map((value) => Math.log(value + 5)),
    );
  });
  it.each<[string, object, RegExp]>([
    [
      "mirrors longer than the window",
      { fftLength: 256, padding: "reflect" },
      /mirrors 128 samples at each end/,
    ],
    ["padding without the centre", { alignment: "start", padding: "zero" }, /wanted alignment "centre"/],
    ["a window shorter than its transform", { fftLength: 128 }, /frames of fftLength 128, a window has 120/],
    ["a range of no decibels", { rangeDb: 80 }, /log "none", wanted "decibel"/],
  ])("refuses %s", (_, features, message) => {
    expect(() => firstOf(features)).toThrow(message);
  });
});
