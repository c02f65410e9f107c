import type { Proportion } from "@fieldloop/protocol";

/** Standard normal quantile of a two-sided 95 % interval. */
export const Z95 = 1.959963984540054;

export interface Counted {
  readonly successes: number;
  readonly count: number;
}

/** Share with its Wilson score interval (Wilson 1927): right at 0 and 1 and for small counts. Nothing counted: null in [0, 1]. */
export function wilson({ successes, count }: Counted, z = Z95): Proportion {
  if (count === 0) return { value: null, low: 0, high: 1, successes: 0, count: 0 };
  const share = successes / count;
  const z2 = z * z;
  const centre = (share + z2 / (2 * count)) / (1 + z2 / count);
  const half = (z / (1 + z2 / count)) * Math.sqrt((share * (1 - share)) / count + z2 / (4 * count * count));
  return {
    value: share,
    low: successes === 0 ? 0 : Math.max(0, centre - half),
    high: successes === count ? 1 : Math.min(1, centre + half),
    successes,
    count,
  };
}

/**
 * Exact one-sided sign test on paired discordant counts (McNemar 1947, exact form): the probability of at least `losses` losses
 * among `losses + wins` fair coins. Small means that the losses are no accident. 1 where nothing differs.
 */
export function discordantPValue(losses: number, wins: number): number {
  const count = losses + wins;
  if (count === 0) return 1;
  // Summed in logarithms from the tail: binomials of a thousand leave the range of a double.
  let logChoose = 0;
  let sum = 0;
  const logHalf = count * Math.LN2;
  for (let k = count; k >= losses; k--) {
    sum += Math.exp(logChoose - logHalf);
    logChoose += Math.log(k) - Math.log(count - k + 1);
  }
  return Math.min(1, sum);
}
