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
  const low = Math.max(0, -limit);
  const high = Math.min(1, 1 - limit);
  // The slope of the log-likelihood along p1 = p2 + limit falls all the way.
  const slope = (p: number): number => slopeAt(first, clamp(p + limit)) + slopeAt(second, clamp(p));
  const p = findRoot((at) => -slope(at), low, high);
  const best = logLikelihood(first, share(first)) + logLikelihood(second, share(second));
  const held = logLikelihood(first, p + limit) + logLikelihood(second, p);
  return Math.sign(difference(first, second) - limit) * Math.sqrt(2 * Math.max(0, best - held));
}

const EDGE = 1e-15;
const clamp = (p: number): number => Math.min(1 - EDGE, Math.max(EDGE, p));

function slopeAt({ successes, count }: Counted, p: number): number {
  return successes / p - (count - successes) / (1 - p);
}

function logLikelihood({ successes, count }: Counted, p: number): number {
  const held = clamp(p);
  const won = successes > 0 ? successes * Math.log(held) : 0;
  return won + (count > successes ? (count - successes) * Math.log1p(-held) : 0);
}
