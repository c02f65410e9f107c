import type { Anchors } from "@fieldloop/protocol";
import { clipUnit } from "../values.js";
import type { DetectionHead, InputSize } from "./decoder.js";
import { requireSize } from "./yolo.js";

interface Made extends InputSize {
  readonly priors: Float32Array;
}

/** Made once for a manifest's anchors and the size of its input. */
const made = new WeakMap<Anchors, Made>();

/** Prior boxes of one input at most; 640 × 640 pixels have some 20,000. */
export const PRIORS_MAX = 1 << 20;

/** How many prior boxes the anchors make over an input, before any are made. */
export function priorCount(anchors: Pick<Anchors, "levels">, size: InputSize): number {
  let count = 0;
  for (const { stride, sizes } of anchors.levels) {
    count += Math.ceil(size.width / stride) * Math.ceil(size.height / stride) * sizes.length;
  }
  return count;
}

/**
 * Prior boxes, four values each: centre and size in 0..1 of the input. Level by level, row by row, cell by cell, size by size.
 * @throws FieldloopError `manifest_invalid` where the size of the input is not known
 */
export function priorsOf(head: DetectionHead, anchors: Anchors, size: InputSize): Float32Array {
  requireSize(head, size);
  const known = made.get(anchors);
  if (known?.width === size.width && known.height === size.height) return known.priors;
  const priors = makePriors(anchors, size);
  made.set(anchors, { ...size, priors });
  return priors;
}

function makePriors(anchors: Anchors, size: InputSize): Float32Array {
  const priors = new Float32Array(priorCount(anchors, size) * 4);
  let at = 0;
  for (const { stride, sizes } of anchors.levels) {
    const columns = Math.ceil(size.width / stride);
    const rows = Math.ceil(size.height / stride);
    const even = anchors.centres === "even";
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        for (const [width, height] of sizes) {
          priors[at++] = even ? (column + 0.5) / columns : ((column + 0.5) * stride) / size.width;
          priors[at++] = even ? (row + 0.5) / rows : ((row + 0.5) * stride) / size.height;
          priors[at++] = width / size.width;
          priors[at++] = height / size.height;
        }
      }
    }
  }
  return anchors.clip ? priors.map(clipUnit) : priors;
}
