/**
 * Signals: numbers per prediction that may reveal a failure. The registry fixes for each how it travels in 8 bits, so that
 * a reader knows its resolution without asking the device. Ids are never reused.
 */
export type ColumnScale =
  | { readonly kind: "linear"; readonly min: number; readonly max: number }
  /** Equal steps of log(value); `min` and `max` are positive. */
  | { readonly kind: "log"; readonly min: number; readonly max: number }
  /** Equal steps of log(p / (1 - p)), clipped at ±bound: fine where a probability is near 0 or 1. */
  | { readonly kind: "logit"; readonly bound: number };

export interface SignalDefinition {
  readonly id: number;
  readonly title: string;
  readonly scale: ColumnScale;
  /** Which end of the signal speaks for a failure. */
  readonly worse: "high" | "low";
}

export const SIGNALS = {
  entropy: {
    id: 0,
    title: "Entropy of the class distribution over its maximum, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "high",
  },
  margin: {
    id: 1,
    title: "Probability of the first class minus that of the second, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "low",
  },
  energy: {
    id: 2,
    title: "-T·logsumexp(logits/T)",
    scale: { kind: "linear", min: -40, max: 24 },
    worse: "high",
  },
  novelty: {
    id: 3,
    title: "Distance of the embedding from the training data, in units of its validation median",
    scale: { kind: "log", min: 0.01, max: 1000 },
    worse: "high",
  },
  instability: {
    id: 4,
    title: "Share of the last predictions whose class differs from this one, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "high",
  },
  disagreement: {
    id: 5,
    title: "Distance between this prediction and that of a second model, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "high",
  },
  reconstruction: {
    id: 6,
    title: "Reconstruction error over the head's threshold",
    scale: { kind: "log", min: 0.001, max: 1000 },
    worse: "high",
  },
  range: {
    id: 7,
    title: "Share of input values outside the range of the training data, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "high",
  },
  rule: {
    id: 8,
    title: "1 where a rule of the user is broken",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "high",
  },
  brightness: {
    id: 9,
    title: "Mean of the input over its full range, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "low",
  },
  value: {
    id: 10,
    title: "First value of a regression within its expected range, 0..1",
    scale: { kind: "linear", min: 0, max: 1 },
    worse: "high",
  },
} as const satisfies Record<string, SignalDefinition>;

/** From this `disagreement` on the second model decides otherwise; below it only its belief differs. */
export const DISAGREES_FROM = 0.5;

export type SignalName = keyof typeof SIGNALS;
export const SIGNAL_NAMES = Object.keys(SIGNALS) as SignalName[];

const NAME_BY_ID = new Map<number, SignalName>(SIGNAL_NAMES.map((name) => [SIGNALS[name].id, name]));

export function signalNameById(id: number): SignalName | undefined {
  return NAME_BY_ID.get(id);
}

/** Confidence travels on the logit scale (0.034 % to 99.966 %), latency on a log scale of 6 % a step. */
export const CONFIDENCE_SCALE: ColumnScale = { kind: "logit", bound: 8 };
export const LATENCY_SCALE: ColumnScale = { kind: "log", min: 0.01, max: 30_000 };

/** Value → 0..255. Anything outside the scale, NaN included, is clipped to its nearer end (NaN to 0). */
export function quantize(value: number, scale: ColumnScale): number {
  const position = toUnit(value, scale);
  return Number.isNaN(position) ? 0 : Math.round(Math.min(Math.max(position, 0), 1) * 255);
}

export function dequantize(code: number, scale: ColumnScale): number {
  const unit = code / 255;
  switch (scale.kind) {
    case "linear":
      return scale.min + unit * (scale.max - scale.min);
    case "log":
      return scale.min * Math.exp(unit * Math.log(scale.max / scale.min));
    case "logit":
      return 1 / (1 + Math.exp(-(unit * 2 - 1) * scale.bound));
  }
}

function toUnit(value: number, scale: ColumnScale): number {
  switch (scale.kind) {
    case "linear":
      return (value - scale.min) / (scale.max - scale.min);
    case "log":
      return Math.log(Math.max(value, scale.min) / scale.min) / Math.log(scale.max / scale.min);
    case "logit": {
      const p = Math.min(Math.max(value, 1e-9), 1 - 1e-9);
      return (Math.log(p / (1 - p)) / scale.bound + 1) / 2;
    }
  }
}
