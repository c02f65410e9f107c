import type { ClassificationHead } from "../heads/classification.js";
import type { AnomalyResult, ClassificationResult } from "../heads/result.js";
import { anomalyProbability } from "../heads/anomaly.js";
import { graded } from "./graded.js";

interface Side {
  readonly head: ClassificationHead;
  readonly result: ClassificationResult;
}

/**
 * One label: the total variation distance of the two distributions (half the sum of |p − q| over the labels of both), and whether the label is
 * another. Several labels at once: how unlike the two sets are (1 − Jaccard), and whether they are the same. Labels are compared by
 * name: class numbers may mean something else in another version.
 */
export function classificationDisagreement(a: Side, b: Side): number {
  if (isSet(a.head) && isSet(b.head)) return setDisagreement(a, b);
  return graded(a.result.label !== b.result.label, totalVariation(a, b));
}

/** Belief that it is anomalous: how far it lies apart, and whether the threshold is between. The labels are each version's own. */
export function anomalyDisagreement(a: AnomalyResult, b: AnomalyResult): number {
  const distance = Math.abs(anomalyProbability(a.score) - anomalyProbability(b.score));
  return graded(a.class !== b.class, distance);
}

function isSet({ activation, threshold }: ClassificationHead): boolean {
  return activation === "sigmoid" && threshold !== undefined;
}

function setDisagreement(a: Side, b: Side): number {
  const [inA, inB] = [labelsSet(a), labelsSet(b)];
  const shared = [...inA].filter((label) => inB.has(label)).length;
  const all = inA.size + inB.size - shared;
  if (shared < all) return graded(true, 1 - shared / all);
  const p = byLabel(a);
  const q = byLabel(b);
  const labels = new Set([...p.keys(), ...q.keys()]);
  let farthest = 0;
  for (const label of labels) {
    farthest = Math.max(farthest, Math.abs((p.get(label) ?? 0) - (q.get(label) ?? 0)));
  }
  return graded(false, farthest);
}

function labelsSet({ head, result }: Side): Set<string> {
  return new Set(head.labels.filter((_, at) => result.probabilities[at]! >= head.threshold!));
}

/** Over the same list of labels, as nearly always, without a map. */
function totalVariation(a: Side, b: Side): number {
  const [p, q] = [a.result.probabilities, b.result.probabilities];
  if (!sameLabels(a.head.labels, b.head.labels)) return totalVariationByName(byLabel(a), byLabel(b));
  let sum = 0;
  for (let at = 0; at < p.length; at++) sum += Math.abs(p[at]! - q[at]!);
  return sum / 2;
}

function totalVariationByName(p: ReadonlyMap<string, number>, q: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const [label, value] of p) sum += Math.abs(value - (q.get(label) ?? 0));
  for (const [label, value] of q) if (!p.has(label)) sum += value;
  return sum / 2;
}

function byLabel({ head, result }: Side): Map<string, number> {
  return new Map(head.labels.map((label, at) => [label, result.probabilities[at]!]));
}

function sameLabels(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((label, at) => label === b[at]));
}
