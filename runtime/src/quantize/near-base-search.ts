import type { StaticQuantizer } from "./quantize.js";
import type { QuantizeProgress } from "./types.js";

/** Two of 400 inputs, less than chance alone moves: asked for none, a form that is as good fails every second time. */
const ACCURACY_DROP_MAX = 0.005;
/** Tried in this order: the first that loses nothing is taken. A cost above them saves little more and starts to show. */
const CHANGE_COSTS = [2, 1, 0.5, 0.25, 0.1] as const;

export interface NearBaseSearchOptions {
  /**
   * How good a model is, 0..1, on inputs not calibrated on: a figure for each part that must hold by itself (new data and old, a slice of a
   * suite). Where it gives none there is nothing to accept a model by, and it is rounded.
   */
  readonly evaluate: (modelBytes: Uint8Array) => Promise<readonly number[]>;
  /** Nodes that stay float. */
  readonly keepFloat?: readonly string[];
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: QuantizeProgress) => void;
}

export interface NearBaseTrial {
  /** Undefined for the model that was rounded as if there were no base. */
  readonly changeCost: number | undefined;
  readonly accuracies: readonly number[];
}

export interface NearBaseResult {
  readonly bytes: Uint8Array;
  /** The model that was rounded as if there were no base. */
  readonly rounded: Uint8Array;
  /** Undefined where staying near the base lost accuracy at any cost: the model is rounded as if there were none. */
  readonly changeCost: number | undefined;
  /** Every model that was judged, in order; the first was rounded. */
  readonly trail: readonly NearBaseTrial[];
}

/**
 * Quantizes near the base's levels as far as that costs nothing: the highest change cost at which every part of the evaluation is as good as
 * for the model that is rounded without a base, within half a point.
 */
export async function searchNearBase(
  quantizer: StaticQuantizer,
  options: NearBaseSearchOptions,
): Promise<NearBaseResult> {
  const { evaluate, keepFloat = [], signal, onProgress } = options;
  const trail: NearBaseTrial[] = [];
  const judge = async (changeCost: number | undefined): Promise<NearBaseTrial & { bytes: Uint8Array }> => {
    signal?.throwIfAborted();
    const bytes = quantizer.rewrite(keepFloat, changeCost);
    const trial = { changeCost, accuracies: await evaluate(bytes) };
    trail.push(trial);
    const shown = trial.accuracies.map((accuracy) => accuracy.toFixed(4)).join(", ");
    const detail = `${changeCost === undefined ? "rounded" : `near the base at ${changeCost}`}: ${shown}`;
    onProgress?.({ stage: "search", done: trail.length, detail });
    return { ...trial, bytes };
  };
  const rounded = await judge(undefined);
  const isJudged = rounded.accuracies.length > 0;
  for (const changeCost of isJudged ? CHANGE_COSTS : []) {
    const trial = await judge(changeCost);
    // Written so that NaN is no better.
    if (
      trial.accuracies.every((accuracy, part) => accuracy >= rounded.accuracies[part]! - ACCURACY_DROP_MAX)
    ) {
      return { bytes: trial.bytes, rounded: rounded.bytes, changeCost, trail };
    }
  }
  return { bytes: rounded.bytes, rounded: rounded.bytes, changeCost: undefined, trail };
}
