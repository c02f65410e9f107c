import type { Counted } from "../intervals.js";
import type { Bounds } from "./binomial-mixture.js";
import { logNormalMixture } from "./normal-mixture.js";
import { findRoot } from "./special.js";

/**
 * Two shares whose observations are independent: evidence and bounds of their difference `first - second` at all looks. The
 * difference enters as its signed root likelihood ratio, which stays close to normal where shares are near 0 or 1 and counts small
 * (Brazzale, Davison and Reid 2007), and the normal mixture makes it valid at every look.
 */

/** ln of the evidence against "the first share exceeds the second by at most `limit`". @param scale of differences that matter */
export function differenceEvidence(first: Counted, second: Counted, limit: number, scale: number): number {
  if (first.count === 0 || second.count === 0) return 0;
  return logNormalMixture(likelihoodRoot(first, second, limit), spreadOf(first, second, scale));
}

/** Confidence sequence of the difference, each side with error `alpha` over all looks. */
export function differenceBounds(first: Counted, second: Counted, scale: number, alpha: number): Bounds {
  const bar = -Math.log(alpha);
  const value = difference(first, second);
  const low = findRoot((limit) => bar - differenceEvidence(first, second, limit, scale), -1, value);
  const high = findRoot((limit) => differenceEvidence(second, first, -limit, scale) - bar, value, 1);
  return { low, high };
}

export function difference(first: Counted, second: Counted): number {
  return share(first) - share(second);
}

/** Standard error of the difference, with a success and a failure added to each side: 30 of 30 is not certainty (Agresti and Caffo 2000). */
export function differenceError(first: Counted, second: Counted): number {
  return Math.sqrt(variance(first) + variance(second));
}

function spreadOf(first: Counted, second: Counted, scale: number): number {
  return (scale / differenceError(first, second)) ** 2;
}

function variance({ successes, count }: Counted): number {
  const p = (successes + 1) / (count + 2);
  return (p * (1 - p)) / (count + 2);
}

function share({ successes, count }: Counted): number {
  return count > 0 ? successes / count : 0;
}

/** Twice the log-likelihood that the best shares at this difference lose, its root signed by the side. */
function likelihoodRoot(first: Counted, second: Counted, limit: number): number {
  const p = bestFirstShare(first, second, limit);
  const best = logLikelihood(first, share(first)) + logLikelihood(second, share(second));
  const held = logLikelihood(first, p) + logLikelihood(second, p - limit);
  return Math.sign(difference(first, second) - limit) * Math.sqrt(2 * Math.max(0, best - held));
}

/** The most likely first share where the difference is `limit`: a root of a cubic (Miettinen and Nurminen 1985; Farrington and Manning 1990). */
export function bestFirstShare(first: Counted, second: Counted, limit: number): number {
  const ratio = second.count / first.count;
  const sum = share(first) + ratio * share(second);
  const a = 1 + ratio;
  const b = -(1 + ratio + sum + limit * (ratio + 2));
  const c = limit * limit + limit * (2 * share(first) + ratio + 1) + sum;
  const d = -share(first) * limit * (1 + limit);
  const v = b ** 3 / (27 * a ** 3) - (b * c) / (6 * a * a) + d / (2 * a);
  const u = Math.sign(v) * Math.sqrt(Math.max(0, (b * b) / (9 * a * a) - c / (3 * a)));
  const cosine = u === 0 ? 0 : Math.min(1, Math.max(-1, v / u ** 3));
  const p = 2 * u * Math.cos((Math.PI + Math.acos(cosine)) / 3) - b / (3 * a);
  return Math.min(Math.max(p, 0, limit), 1, 1 + limit);
}

const EDGE = 1e-15;
const clamp = (p: number): number => Math.min(1 - EDGE, Math.max(EDGE, p));

function logLikelihood({ successes, count }: Counted, p: number): number {
  const held = clamp(p);
  const won = successes > 0 ? successes * Math.log(held) : 0;
  return won + (count > successes ? (count - successes) * Math.log1p(-held) : 0);
}
