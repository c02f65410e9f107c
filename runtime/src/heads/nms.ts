import type { Box } from "@fieldloop/protocol";

/** Intersection over union of two boxes by their corners; 0 where either is empty. */
export function intersectionOverUnion(a: Box, b: Box): number {
  const width = Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0);
  const height = Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (areaOf(a) + areaOf(b) - shared);
}

/** Boxes of one class compete, or all do, or none does. */
export type Suppression = "class" | "all" | "none";

/**
 * Greedy non-maximum suppression over columns: four corners and a class for each box, best score first. Of boxes of one class that overlap
 * more than `iouThreshold` the first stays. Gives the places of those that stay, at most `detectionsMax`.
 */
export function keepBest(
  corners: Float32Array | Float64Array,
  classes: Uint16Array,
  iouThreshold: number,
  detectionsMax: number,
  suppression: Suppression,
): number[] {
  const kept: number[] = [];
  for (let at = 0; at < classes.length && kept.length < detectionsMax; at++) {
    if (suppression === "none" || !isCovered(at, kept, corners, classes, iouThreshold, suppression))
      kept.push(at);
  }
  return kept;
}

function isCovered(
  at: number,
  kept: readonly number[],
  corners: Float32Array | Float64Array,
  classes: Uint16Array,
  iouThreshold: number,
  suppression: Suppression,
): boolean {
  const x0 = corners[at * 4]!;
  const y0 = corners[at * 4 + 1]!;
  const x1 = corners[at * 4 + 2]!;
  const y1 = corners[at * 4 + 3]!;
  const area = (x1 - x0) * (y1 - y0);
  for (const other of kept) {
    if (suppression === "class" && classes[other] !== classes[at]) continue;
    const from = other * 4;
    const width = Math.min(x1, corners[from + 2]!) - Math.max(x0, corners[from]!);
    const height = Math.min(y1, corners[from + 3]!) - Math.max(y0, corners[from + 1]!);
    if (width <= 0 || height <= 0) continue;
    const shared = width * height;
    const otherArea = (corners[from + 2]! - corners[from]!) * (corners[from + 3]! - corners[from + 1]!);
    if (shared / (area + otherArea - shared) > iouThreshold) return true;
  }
  return false;
}

function areaOf(box: Box): number {
  return (box.x1 - box.x0) * (box.y1 - box.y0);
}
