import { DISAGREES_FROM } from "@fieldloop/protocol";
import { clipUnit } from "../heads/values.js";

/**
 * One number for two questions. Whether the decision is another: from {@link DISAGREES_FROM} on it is. And how far the answers lie apart, on
 * either side of it: `distance`, 0..1.
 */
export function graded(differs: boolean, distance: number): number {
  const share = clipUnit(distance);
  return differs ? DISAGREES_FROM + (1 - DISAGREES_FROM) * share : DISAGREES_FROM * share;
}

/** A distance that is a decision by itself: from `tolerance` on it differs. */
export function gradedBy(value: number, tolerance: number): number {
  const ratio = tolerance > 0 ? value / tolerance : value > 0 ? Number.POSITIVE_INFINITY : 0;
  return clipUnit(DISAGREES_FROM * ratio);
}
