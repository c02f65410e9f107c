import type { Box } from "@fieldloop/protocol";
import type { DetectionHead } from "../heads/detection.js";
import { intersectionOverUnion } from "../heads/nms.js";
import type { DetectionResult } from "../heads/result.js";
import { graded } from "./graded.js";

/** Two boxes of one label that overlap at least so much are the same object (as in PASCAL VOC, Everingham et al. 2010). */
export const MATCH_IOU = 0.5;
/** An object that only one of two sees counts as another decision where its score lies so far above the threshold, of what is above it. */
const CERTAIN_SHARE = 0.5;

interface Side {
  readonly head: DetectionHead;
  readonly result: DetectionResult;
}

/** Place of a box in the one list and in the other. */
export type BoxMatch = readonly [a: number, b: number];

/**
 * How much of what the two see, weighted by score, only one of them sees. The decision is another where the best boxes have different labels
 * or where one is certain of an object that the other does not see. A box that is just above the threshold of one and just below that of the
 * other changes little.
 */
export function detectionDisagreement(a: Side, b: Side): number {
  const matches = matchBoxes(a, b);
  const aloneA = alone(a.result.boxes, new Set(matches.map(([at]) => at)));
  const aloneB = alone(b.result.boxes, new Set(matches.map(([, at]) => at)));
  const total = weight(a.result.boxes) + weight(b.result.boxes);
  const distance = total === 0 ? 0 : (weight(aloneA) + weight(aloneB)) / total;
  const differs =
    a.result.label !== b.result.label || aloneA.some(isCertain(a.head)) || aloneB.some(isCertain(b.head));
  return graded(differs, distance);
}

/** Boxes of both that are the same object: the pair that overlaps most first, each box once. */
export function matchBoxes(a: Side, b: Side): BoxMatch[] {
  const candidates: { readonly a: number; readonly b: number; readonly iou: number }[] = [];
  for (const [atA, boxA] of a.result.boxes.entries()) {
    const label = a.head.labels[boxA.class];
    for (const [atB, boxB] of b.result.boxes.entries()) {
      if (b.head.labels[boxB.class] !== label) continue;
      const iou = intersectionOverUnion(boxA, boxB);
      if (iou >= MATCH_IOU) candidates.push({ a: atA, b: atB, iou });
    }
  }
  candidates.sort((one, other) => other.iou - one.iou || one.a - other.a || one.b - other.b);
  const [takenA, takenB] = [new Set<number>(), new Set<number>()];
  const matches: BoxMatch[] = [];
  for (const pair of candidates) {
    if (takenA.has(pair.a) || takenB.has(pair.b)) continue;
    takenA.add(pair.a);
    takenB.add(pair.b);
    matches.push([pair.a, pair.b]);
  }
  return matches;
}

function alone(boxes: readonly Box[], matched: ReadonlySet<number>): Box[] {
  return boxes.filter((_, at) => !matched.has(at));
}

function weight(boxes: readonly Box[]): number {
  return boxes.reduce((sum, { score }) => sum + score, 0);
}

function isCertain({ scoreThreshold }: DetectionHead): (box: Box) => boolean {
  const bound = scoreThreshold + CERTAIN_SHARE * (1 - scoreThreshold);
  return ({ score }) => score >= bound;
}
