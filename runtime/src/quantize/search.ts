import type { Backend } from "../backend.js";
import { compareModels } from "./compare.js";
import { QUANTIZE_LIMITS } from "./limits.js";
import type { StaticQuantizer } from "./quantize.js";
import type { QuantizeProgress } from "./types.js";

/** Batches on which one layer's effect is measured. */
const SENSITIVITY_BATCHES = 4;

export interface Sensitivity {
  readonly node: string;
  /** Worst output's signal to noise ratio when this node alone is quantized, decibels. */
  readonly sqnrDb: number;
}

export interface SearchOptions {
  readonly backend: Backend;
  /** How good a variant is, higher being better: share of right answers, or agreement with float, on inputs not calibrated on. */
  readonly evaluate: (variantBytes: Uint8Array) => number | Promise<number>;
  /** What a variant must reach. */
  readonly accuracyMin: number;
  /** Models made and evaluated at most; default 24. */
  readonly evaluationsMax?: number;
  /** Nodes that stay float in any case. */
  readonly startFrom?: readonly string[];
  readonly threadCount?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: QuantizeProgress) => void;
}

export interface SearchResult {
  /** Whether a variant reached the bound; else `keepFloat` is the best that was tried. */
  readonly found: boolean;
  readonly keepFloat: readonly string[];
  readonly accuracy: number;
  readonly evaluations: number;
  readonly sensitivities: readonly Sensitivity[];
  /** Every variant that was evaluated: how many nodes it left in float, and how good it was. */
  readonly trail: readonly { readonly keptFloat: number; readonly accuracy: number }[];
}

/**
 * Measures, node by node, what quantizing it alone does to the model's outputs, most harmful first. Costs one comparison a node.
 */
export async function measureSensitivity(
  quantizer: StaticQuantizer,
  options: Pick<SearchOptions, "backend" | "threadCount" | "signal" | "onProgress">,
): Promise<Sensitivity[]> {
  const { quantizable, floatBytes } = quantizer;
  const inputs = quantizer.kept.slice(0, SENSITIVITY_BATCHES);
  const session = await options.backend.openSession(floatBytes, { threadCount: 1, executionProvider: "cpu" });
  const pairs = session.outputs
    .filter(({ type }) => type === "float32")
    .map(({ name }) => ({ reference: name, test: name }));
  await session.release();
  const measured: Sensitivity[] = [];
  for (const node of quantizable) {
    const alone = quantizer.rewrite(quantizable.filter((other) => other !== node));
    const compared = await compareModels(floatBytes, alone, pairs, inputs, "fused", options);
    // The cosine tells what the ratio hides: an output that turned to NaN compares as nothing.
    const ratios = [...compared.values()].map(({ sqnrDb }) => (Number.isNaN(sqnrDb) ? -200 : sqnrDb));
    measured.push({ node, sqnrDb: Math.min(200, ...ratios) });
    options.onProgress?.({ stage: "search", done: measured.length, detail: `${node} alone` });
  }
  return measured.sort((a, b) => a.sqnrDb - b.sqnrDb);
}

/**
 * Finds few nodes to leave in float so that the accuracy bound holds: orders nodes by the harm each does alone, bisects for the
 * shortest beginning of that order that suffices, then tries to give nodes back, the least harmful first. Each model that is
 * evaluated counts; the search stops at `evaluationsMax` with the best it has.
 */
export async function searchFloatNodes(
  quantizer: StaticQuantizer,
  options: SearchOptions,
): Promise<SearchResult> {
  const evaluationsMax = Math.min(options.evaluationsMax ?? 24, QUANTIZE_LIMITS.searchEvaluationsMax);
  const trail: { keptFloat: number; accuracy: number }[] = [];
  let best: { keepFloat: readonly string[]; accuracy: number } = { keepFloat: [], accuracy: -Infinity };
  const holds = (accuracy: number) => accuracy >= options.accuracyMin;
  let found: readonly string[] | undefined;
  const fixed = options.startFrom ?? [];
  const tryOut = async (chosen: readonly string[]): Promise<boolean> => {
    options.signal?.throwIfAborted();
    const keepFloat = [...fixed, ...chosen];
    const accuracy = await options.evaluate(quantizer.rewrite(keepFloat));
    trail.push({ keptFloat: keepFloat.length, accuracy });
    const detail = `${keepFloat.length} nodes in float: ${accuracy.toFixed(4)}`;
    options.onProgress?.({ stage: "search", done: trail.length, detail });
    if (!holds(accuracy)) {
      if (!found && accuracy > best.accuracy) best = { keepFloat, accuracy };
      return false;
    }
    if (!found || keepFloat.length < found.length) {
      found = keepFloat;
      best = { keepFloat, accuracy };
    }
    return true;
  };
  const result = (sensitivities: readonly Sensitivity[]): SearchResult => ({
    found: found !== undefined,
    ...best,
    evaluations: trail.length,
    sensitivities,
    trail,
  });
  if (await tryOut([])) return result([]);
  const sensitivities = await measureSensitivity(quantizer, options);
  const order = sensitivities.map(({ node }) => node).filter((node) => !fixed.includes(node));
  // With everything in float there is nothing left to search for.
  let failing = 0;
  let holding = order.length;
  while (holding - failing > 1 && trail.length < evaluationsMax) {
    const middle = failing + Math.max(1, Math.floor((holding - failing) / 2));
    if (await tryOut(order.slice(0, middle))) holding = middle;
    else failing = middle;
  }
  if (!found) return result(sensitivities);
  for (const node of found.slice(fixed.length).reverse()) {
    if (trail.length >= evaluationsMax) break;
    const fewer = best.keepFloat.slice(fixed.length).filter((kept) => kept !== node);
    if (fewer.length > 0) await tryOut(fewer);
  }
  return result(sensitivities);
}
