import type { SegmentationHead } from "../heads/segmentation.js";
import { NO_LABEL, type Mask, type SegmentationResult } from "../heads/result.js";
import { graded } from "./graded.js";

interface Side {
  readonly head: SegmentationHead;
  readonly result: SegmentationResult;
}

/** Below it the two outline something else, even where the largest label is the same. */
const OVERLAP_MIN = 0.5;

/**
 * 1 minus the mean intersection over union, over the labels that either has a pixel of; the decision is another where its label is, or where
 * less than half overlaps. Masks of two sizes are compared on the smaller one's pixels.
 */
export function segmentationDisagreement(a: Side, b: Side): number {
  const overlap = meanOverlap(a, b);
  return graded(a.result.label !== b.result.label || overlap < OVERLAP_MIN, 1 - overlap);
}

function meanOverlap(a: Side, b: Side): number {
  const names = [...new Set([...a.head.labels, ...b.head.labels, NO_LABEL])];
  const place = new Map(names.map((name, at) => [name, at]));
  const ofA = placesOf(a.head, place);
  const ofB = placesOf(b.head, place);
  const [shared, inA, inB] = [names, names, names].map((all) => new Float64Array(all.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const [maskA, maskB] = [a.result.mask, b.result.mask];
  const grid = maskA.classes.length <= maskB.classes.length ? maskA : maskB;
  const columnsA = nearest(grid.width, maskA.width);
  const columnsB = nearest(grid.width, maskB.width);
  for (let row = 0; row < grid.height; row++) {
    const rowA = rowOf(maskA, row, grid.height);
    const rowB = rowOf(maskB, row, grid.height);
    for (let column = 0; column < grid.width; column++) {
      const labelA = ofA[maskA.classes[rowA + columnsA[column]!]!] ?? names.length - 1;
      const labelB = ofB[maskB.classes[rowB + columnsB[column]!]!] ?? names.length - 1;
      inA[labelA]!++;
      inB[labelB]!++;
      if (labelA === labelB) shared[labelA]!++;
    }
  }
  let sum = 0;
  let present = 0;
  for (let at = 0; at < names.length; at++) {
    const union = inA[at]! + inB[at]! - shared[at]!;
    if (union === 0) continue;
    sum += shared[at]! / union;
    present++;
  }
  return present === 0 ? 1 : sum / present;
}

/** Class number → place of its label among those of both; a pixel of no label has none. */
function placesOf(head: SegmentationHead, place: ReadonlyMap<string, number>): number[] {
  return head.labels.map((label) => place.get(label)!);
}

/** Where the middle of each of `count` columns lies among `width` of them. */
function nearest(count: number, width: number): Int32Array {
  return Int32Array.from({ length: count }, (_, at) => Math.floor(((at + 0.5) * width) / count));
}

function rowOf({ width, height }: Mask, row: number, rows: number): number {
  return Math.floor(((row + 0.5) * height) / rows) * width;
}
