import type { Proportion } from "@fieldloop/protocol";

/** Standard normal quantiles of two-sided 95 % and 99 % intervals. */
export const Z95 = 1.959963984540054;
export const Z99 = 2.5758293035489;

export interface Counted {
  readonly successes: number;
  readonly count: number;
}

export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
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
 * Difference `a - b` of two independent shares with its interval: Newcombe 1998, method 10 (hybrid of Wilson intervals).
 * Undefined where either side counted nothing.
 */
export function newcombeDifference(a: Counted, b: Counted, z = Z95): Interval | undefined {
  if (a.count === 0 || b.count === 0) return undefined;
  const first = wilson(a, z);
  const second = wilson(b, z);
  const p1 = a.successes / a.count;
  const p2 = b.successes / b.count;
  const value = p1 - p2;
  return {
    value,
    low: value - Math.hypot(p1 - first.low, second.high - p2),
    high: value + Math.hypot(first.high - p1, p2 - second.low),
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
