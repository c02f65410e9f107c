import type { Box } from "@fieldloop/protocol";

/** Intersection over union of two boxes by their corners; 0 where either is empty. */
export function intersectionOverUnion(a: Box, b: Box): number {
  const width = Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0);
  const height = Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (areaOf(a) + areaOf(b) - shared);
}

/**
 * Greedy non-maximum suppression: of boxes of one class that overlap more than `iouThreshold`, the one with the highest
 * score stays. Ties keep the order of `boxes`. At most `detectionsMax` boxes come back, best first.
 */
export function suppressOverlaps(boxes: readonly Box[], iouThreshold: number, detectionsMax: number): Box[] {
  const ordered = [...boxes].sort((a, b) => b.score - a.score);
  const kept: Box[] = [];
  for (const box of ordered) {
    if (kept.length >= detectionsMax) break;
    if (!isCovered(box, kept, iouThreshold)) kept.push(box);
  }
  return kept;
}

function isCovered(box: Box, kept: readonly Box[], iouThreshold: number): boolean {
  for (const other of kept) {
    if (other.class === box.class && intersectionOverUnion(other, box) > iouThreshold) return true;
  }
  return false;
}

function areaOf(box: Box): number {
  return (box.x1 - box.x0) * (box.y1 - box.y0);
}
