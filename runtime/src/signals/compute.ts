import type { SignalName } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { HeadResult } from "../heads/result.js";
import { asFloat32 } from "../package/tensor-bytes.js";
import type { Baseline } from "../profile/baseline.js";
import { noveltyOf } from "../profile/novelty.js";

/** Signals of one prediction; one that the model cannot give (no logits, no baseline) is absent. */
export type SignalValues = Readonly<Partial<Record<SignalName, number>>>;

export interface SignalContext {
  readonly results: readonly HeadResult[];
  /** Share of the last predictions that differ, from a {@link SignalTracker}. */
  readonly instability?: number;
  readonly brightness?: number;
  /** The tensor of the first input. */
  readonly input?: Tensor;
  readonly baseline?: Baseline;
}

/**
 * The wanted signals of one prediction, in constant memory. `disagreement` and `rule` come from beyond one model (a
 * second model, rules of the user): whoever knows them adds them.
 */
export function computeSignals(wanted: readonly SignalName[], context: SignalContext): SignalValues {
  const signals: Partial<Record<SignalName, number>> = {};
  for (const name of wanted) {
    const value = computeSignal(name, context);
    if (value !== undefined) signals[name] = value;
  }
  return signals;
}

function computeSignal(name: SignalName, context: SignalContext): number | undefined {
  const { results, baseline } = context;
  switch (name) {
    case "entropy":
      return deciding(results)?.entropy;
    case "margin":
      return deciding(results)?.margin;
    case "energy":
      return results.find((result) => result.kind === "classification")?.energy;
    case "novelty": {
      const embedding = results.find((result) => result.kind === "embedding")?.embedding;
      return embedding && baseline?.novelty ? noveltyOf(embedding, baseline.novelty) : undefined;
    }
    case "reconstruction":
      return results.find((result) => result.kind === "anomaly")?.score;
    case "range":
      return context.input && baseline?.inputRange
        ? outsideShare(context.input, baseline.inputRange)
        : undefined;
    case "brightness":
      return context.brightness;
    case "instability":
      return context.instability;
    case "value":
      return results.find((result) => result.kind === "regression")?.position;
    case "disagreement":
    case "rule":
      return undefined;
  }
}

/** The first head that decides something: its class is the prediction's class. */
export function deciding(results: readonly HeadResult[]): Extract<HeadResult, { class: number }> | undefined {
  return results.find((result) => "class" in result);
}

function outsideShare(input: Tensor, range: { min: number; max: number }): number {
  const values = asFloat32(input);
  let outside = 0;
  for (let at = 0; at < values.length; at++) {
    if (!(values[at]! >= range.min && values[at]! <= range.max)) outside++;
  }
  return outside / Math.max(values.length, 1);
}
