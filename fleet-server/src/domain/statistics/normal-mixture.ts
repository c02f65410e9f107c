import { findRoot, logNormalTail } from "./special.js";

/**
 * ln of the one-sided normal mixture: evidence against "the effect is at most the limit" from an estimate that lies `z` standard
 * errors above it. `spread` is the variance of the mixture over effects, in units of the estimate's variance: (scale / standard
 * error)². Written for Brownian motion in information time, where it is an e-process (Robbins 1970; Howard, Ramdas, McAuliffe and
 * Sekhon 2021, one-sided normal mixture); estimates whose errors are asymptotically normal behave so in the information
 * 1 / variance (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, asymptotic confidence sequences; Scharfstein, Tsiatis and
 * Robins 1997 for estimates that grow more exact on the same units).
 */
export function logNormalMixture(z: number, spread: number): number {
  if (!(spread > 0)) return 0;
  const x = z * Math.sqrt(spread / (1 + spread));
  return Math.LN2 - 0.5 * Math.log1p(spread) + 0.5 * x * x + logNormalTail(-x);
}

/** The z from which `logNormalMixture` reaches ln(1 / alpha); infinite where nothing is known yet. */
export function normalMixtureBar(alpha: number, spread: number): number {
  if (!(spread > 1e-12)) return Number.POSITIVE_INFINITY;
  const bar = -Math.log(alpha);
  // x²/2 alone reaches the bar there.
  const most = Math.sqrt((2 * (bar + Math.log1p(spread)) * (1 + spread)) / spread) + 1;
  return findRoot((z) => logNormalMixture(z, spread) - bar, -most, most);
}
