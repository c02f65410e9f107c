import { findRoot, logBeta, logIncompleteBeta } from "./special.js";

/** Jeffreys' prior Beta(1/2, 1/2): costs half a logarithm of the count whatever the truth is (Krichevsky and Trofimov 1981). */
const PRIOR = 0.5;

/**
 * ln of the e-process against "each trial succeeds with probability at most `limit`", after `successes` and `failures`: the
 * likelihood ratio of a mixture over all larger probabilities, Jeffreys' prior cut off at the limit (method of mixtures: Robbins
 * 1970; betting: Waudby-Smith and Ramdas 2024). For every probability up to the limit its mean is at most 1 at any stopping time
 * (Ville 1939), so it may be looked at after every trial. A function of the counts alone; they need not be whole.
 */
export function logEvidenceAbove(successes: number, failures: number, limit: number): number {
  if (limit >= 1) return 0;
  if (limit <= 0) return successes > 0 ? Number.POSITIVE_INFINITY : logMixture(successes, failures, 0);
  const null_ = successes * Math.log(limit) + failures * Math.log1p(-limit);
  return logMixture(successes, failures, limit) - null_;
}

/** ln of the mean of `q^successes (1 - q)^failures` over Jeffreys' prior cut off to q > `limit`. */
export function logMixture(successes: number, failures: number, limit: number): number {
  const a = successes + PRIOR;
  const b = failures + PRIOR;
  const posterior = logBeta(a, b) + logIncompleteBeta(limit, a, b).above;
  const prior = logBeta(PRIOR, PRIOR) + logIncompleteBeta(limit, PRIOR, PRIOR).above;
  return posterior - prior;
}

export interface Bounds {
  readonly low: number;
  readonly high: number;
}

/**
 * Confidence sequence of a probability: at no count ever does `low` exceed it with probability above `alpha`, nor does `high` fall
 * below it. All limits against which the e-process has not reached 1 / alpha, each side by itself.
 */
export function proportionBounds(successes: number, count: number, alpha: number): Bounds {
  const failures = count - successes;
  const bar = -Math.log(alpha);
  const share = count > 0 ? successes / count : 0.5;
  const low =
    successes > 0 ? findRoot((limit) => bar - logEvidenceAbove(successes, failures, limit), 0, share) : 0;
  const high =
    failures > 0 ? findRoot((limit) => logEvidenceAbove(failures, successes, 1 - limit) - bar, share, 1) : 1;
  return { low, high };
}
