import type { Random } from "@fieldloop/runtime/simulate";

/** Draws of the distributions that simulated fleets are made of. Exact where counts are small, by a normal approximation where they are large. */

/** Standard normal, with its tails (Box and Muller). */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

/** Student's t with three degrees of freedom, scaled to variance 1: heavy tails. */
export function heavyTailed(random: Random): number {
  const chi = normal(random) ** 2 + normal(random) ** 2 + normal(random) ** 2;
  return normal(random) / Math.sqrt(chi);
}

export function exponential(random: Random, mean: number): number {
  return -mean * Math.log(1 - random.uniform());
}

/** Pareto with least value 1: P(X > x) = x^-shape. */
export function pareto(random: Random, shape: number): number {
  return (1 - random.uniform()) ** (-1 / shape);
}

/** Gamma with mean `shape` (Marsaglia and Tsang 2000). */
export function gamma(random: Random, shape: number): number {
  if (shape < 1) return gamma(random, shape + 1) * random.uniform() ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal(random);
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

export function poisson(random: Random, mean: number): number {
  if (mean > 40) return Math.max(0, Math.round(mean + Math.sqrt(mean) * normal(random)));
  const bar = Math.exp(-mean);
  let count = -1;
  for (let product = 1; product > bar; product *= 1 - random.uniform()) count++;
  return Math.max(count, 0);
}

export function binomial(random: Random, count: number, share: number): number {
  if (share > 0.5) return count - binomial(random, count, 1 - share);
  const spread = count * share * (1 - share);
  if (spread > 25) {
    return Math.min(count, Math.max(0, Math.round(count * share + Math.sqrt(spread) * normal(random))));
  }
  if (share <= 0) return 0;
  // Gaps between successes are geometric.
  let successes = -1;
  const step = Math.log1p(-share);
  for (let at = 0; at <= count; successes++) at += Math.floor(Math.log(1 - random.uniform()) / step) + 1;
  return successes;
}

export function logistic(x: number): number {
  return 1 / (1 + Math.exp(-x));
}
