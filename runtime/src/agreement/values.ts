import type { Head } from "@fieldloop/protocol";
import type { RegressionHead } from "../heads/regression.js";
import type { ImageResult, Keypoint, KeypointsResult, RegressionResult } from "../heads/result.js";
import { graded, gradedBy } from "./graded.js";

interface RegressionSide {
  readonly head: RegressionHead;
  readonly result: RegressionResult;
}

/** Of the range between a target's `min` and `max`; of the larger value where it has none. */
export const REGRESSION_TOLERANCE = 0.05;
/** Of the image's width and height: two points farther apart than this are not the same. */
export const POINT_TOLERANCE = 0.05;
/** Mean difference of two images, of the full range of a pixel. */
export const IMAGE_TOLERANCE = 0.1;

/**
 * The target that differs most, in units of its tolerance. Targets are compared by name; undefined where the two have none in common.
 */
export function regressionDisagreement(a: RegressionSide, b: RegressionSide): number | undefined {
  let farthest: number | undefined;
  for (const [at, target] of a.head.targets.entries()) {
    const other = b.head.targets.findIndex(({ name }) => name === target.name);
    if (other < 0) continue;
    const [value, otherValue] = [a.result.values[at]!, b.result.values[other]!];
    const tolerance = REGRESSION_TOLERANCE * scaleOf(target, value, otherValue);
    farthest = Math.max(farthest ?? 0, gradedBy(Math.abs(value - otherValue), tolerance));
  }
  return farthest;
}

function scaleOf(
  { min, max }: Extract<Head, { kind: "regression" }>["targets"][number],
  a: number,
  b: number,
): number {
  if (min !== undefined && max !== undefined && max > min) return max - min;
  return Math.max(Math.abs(a), Math.abs(b));
}

/** Share of the points that only one has, or that moved; half of them is another decision. */
export function keypointsDisagreement(a: KeypointsResult, b: KeypointsResult): number {
  const [pointsA, pointsB] = [byLabel(a.points), byLabel(b.points)];
  const labels = new Set([...pointsA.keys(), ...pointsB.keys()]);
  let other = 0;
  for (const label of labels) {
    const [pointA, pointB] = [pointsA.get(label), pointsB.get(label)];
    const moved =
      !pointA || !pointB || Math.hypot(pointA.x - pointB.x, pointA.y - pointB.y) > POINT_TOLERANCE;
    if (moved) other++;
  }
  const share = labels.size === 0 ? 0 : other / labels.size;
  return graded(share >= 0.5, share);
}

function byLabel(points: readonly Keypoint[]): Map<string, Keypoint> {
  return new Map(points.map((point) => [point.label, point]));
}

/** Mean absolute difference of the pixels; undefined where the two images have another size or number of channels. */
export function imageDisagreement(a: ImageResult, b: ImageResult): number | undefined {
  if (a.width !== b.width || a.height !== b.height || a.channels !== b.channels) return undefined;
  let sum = 0;
  for (let at = 0; at < a.data.length; at++) sum += Math.abs(a.data[at]! - b.data[at]!);
  const mean = a.data.length === 0 ? 0 : sum / a.data.length / 255;
  return gradedBy(mean, IMAGE_TOLERANCE);
}
