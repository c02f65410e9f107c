import type { Head } from "@fieldloop/protocol";
import type { Candidates } from "./candidates.js";

export type DetectionHead = Extract<Head, { kind: "detection" }>;

/** Width and height of the model's input in pixels; 0 where nothing says them. */
export interface InputSize {
  readonly width: number;
  readonly height: number;
}

/** One family's reading of its outputs. `row` is the decoder's own number of a box. */
export interface Decoder {
  /** Boxes that the outputs hold. */
  readonly count: number;
  /** Adds every candidate that scores at least the floor, and notes the highest score of all. */
  scan(candidates: Candidates): void;
  /** Writes x0, y0, x1, y1 of a box in 0..1 of the model's input, unclipped. */
  corners(row: number, into: Float32Array, at: number): void;
  /** Writes x, y in 0..1 of the model's input and the raw visibility of one of the head's keypoints. */
  point?(row: number, index: number, into: Float32Array): void;
  /** One of the coefficients of the box's instance mask. */
  coefficient?(row: number, index: number): number;
}

/** Columns that pose and instance mask take beside box and classes. */
export function extraColumns(head: DetectionHead): { points: number; masks: number } {
  const points = head.keypoints?.output === undefined ? head.keypoints : undefined;
  return {
    points: points === undefined ? 0 : points.labels.length * (points.scored ? 3 : 2),
    masks: head.masks?.count ?? 0,
  };
}
