import type { Counted } from "../intervals.js";
import { binomialVariance, type Contrast } from "./device-contrast.js";

/**
 * Difference `first - second` of two shares whose observations are independent, as a contrast. The variance adds one success and one failure to each
 * side, so that 30 of 30 does not pass for certainty.
 */
export function shareContrast(first: Counted, second: Counted): Contrast {
  const variance = (counted: Counted): number =>
    binomialVariance({ sum: counted.successes, weight: counted.count });
  const share = ({ successes, count }: Counted): number => successes / Math.max(count, 1);
  return {
    value: share(first) - share(second),
    standardError: Math.sqrt(variance(first) + variance(second)),
    degrees: Number.POSITIVE_INFINITY,
  };
}
