import { logEvidenceAbove, type Bounds } from "./binomial-mixture.js";
import { findRoot } from "./special.js";

/** Events in a time of exposure, in any unit that both sides share. */
export interface Rate {
  readonly count: number;
  readonly exposure: number;
}

/** Ratios of rates are looked for in 1 / this to this. */
const RATIO_MAX = 1e9;

/**
 * ln of the evidence against "the first rate is at most `ratio` times the second": of all events, the share that fell on the first
 * is then at most `ratio e1 / (ratio e1 + e2)`, whatever the rate itself is (Przyborowski and Wilenski 1940), and each event is a
 * bet on that. Exact at each look; over all looks where both sides' exposures grow in step.
 */
export function rateEvidence(first: Rate, second: Rate, ratio: number): number {
  if (first.exposure <= 0 || second.exposure <= 0) return 0;
  const share = (ratio * first.exposure) / (ratio * first.exposure + second.exposure);
  return logEvidenceAbove(first.count, second.count, share);
}

/** Confidence sequence of the ratio of two rates, each side with error `alpha`; 0 and Infinity where one is unbounded. */
export function rateRatioBounds(first: Rate, second: Rate, alpha: number): Bounds {
  if (first.exposure <= 0 || second.exposure <= 0) return { low: 0, high: Number.POSITIVE_INFINITY };
  const bar = -Math.log(alpha);
  const ends = [-Math.log(RATIO_MAX), Math.log(RATIO_MAX)] as const;
  const low =
    first.count > 0 ? Math.exp(findRoot((x) => bar - rateEvidence(first, second, Math.exp(x)), ...ends)) : 0;
  const high =
    second.count > 0
      ? Math.exp(findRoot((x) => rateEvidence(second, first, Math.exp(-x)) - bar, ...ends))
      : Number.POSITIVE_INFINITY;
  return { low, high };
}

/**
 * How much more the devices' counts vary than chance alone would make them: Pearson's statistic per degree of freedom, at least 1
 * (quasi-Poisson; McCullagh and Nelder 1989, section 6.2.3). A device that crashes in a loop is one bad device, not fifty events;
 * counts divided by this weigh so.
 */
export function overdispersion(devices: readonly Rate[]): number {
  let count = 0;
  let exposure = 0;
  for (const device of devices) {
    count += device.count;
    exposure += device.exposure;
  }
  if (count === 0 || devices.length < 2) return 1;
  let pearson = 0;
  for (const device of devices) {
    const expected = (count * device.exposure) / exposure;
    if (expected > 0) pearson += (device.count - expected) ** 2 / expected;
  }
  return Math.max(1, pearson / (devices.length - 1));
}
