import type { WindowFeatures } from "@fieldloop/protocol";

type Mel = NonNullable<WindowFeatures["mel"]>;

/** Weights of the spectrum's bins from `start` on; bins beyond them weigh nothing. */
export interface MelFilter {
  readonly start: number;
  readonly weights: Float64Array;
}

/** Slaney's Auditory Toolbox (1998): linear to 1 kHz with 200/3 Hz a mel, then 27 mels for a factor of 6.4. */
const SLANEY = { hertzPerMel: 200 / 3, kneeHz: 1000, kneeMel: 15, logStep: Math.log(6.4) / 27 } as const;

export function hertzToMel(hertz: number, scale: Mel["scale"]): number {
  if (scale === "htk") return 2595 * Math.log10(1 + hertz / 700);
  if (hertz < SLANEY.kneeHz) return hertz / SLANEY.hertzPerMel;
  return SLANEY.kneeMel + Math.log(hertz / SLANEY.kneeHz) / SLANEY.logStep;
}

export function melToHertz(mel: number, scale: Mel["scale"]): number {
  if (scale === "htk") return 700 * (10 ** (mel / 2595) - 1);
  if (mel < SLANEY.kneeMel) return mel * SLANEY.hertzPerMel;
  return SLANEY.kneeHz * Math.exp(SLANEY.logStep * (mel - SLANEY.kneeMel));
}

/** `count` frequencies from `lowHz` to `highHz` at equal distances in mels. */
export function melFrequencies(count: number, lowHz: number, highHz: number, scale: Mel["scale"]): number[] {
  const low = hertzToMel(lowHz, scale);
  const step = (hertzToMel(highHz, scale) - low) / (count - 1);
  return Array.from({ length: count }, (_, at) => melToHertz(low + at * step, scale));
}

/**
 * Triangles over the bins of a real FFT, straight in hertz (librosa `filters.mel`, torchaudio `melscale_fbanks`); with
 * `norm: "slaney"` each has an area of one.
 */
export function melFilters(mel: Mel, fftLength: number, sampleRateHz: number): MelFilter[] {
  const edges = melFrequencies(mel.bins + 2, mel.lowHz, mel.highHz, mel.scale);
  const binHz = sampleRateHz / fftLength;
  const binCount = fftLength / 2 + 1;
  return Array.from({ length: mel.bins }, (_, band) => {
    const [left, centre, right] = edges.slice(band, band + 3) as [number, number, number];
    const area = mel.norm === "slaney" ? 2 / (right - left) : 1;
    const weightOf = (bin: number): number => {
      const hertz = bin * binHz;
      return (
        area * Math.max(0, Math.min((hertz - left) / (centre - left), (right - hertz) / (right - centre)))
      );
    };
    const start = Math.min(Math.ceil(left / binHz), binCount);
    const end = Math.min(Math.floor(right / binHz) + 1, binCount);
    return {
      start,
      weights: Float64Array.from({ length: Math.max(end - start, 0) }, (_unused, at) => weightOf(start + at)),
    };
  });
}
