/**
 * Special functions in logarithms, so that tails of 1e-300 and counts of 1e7 stay exact enough to bet on: relative error of the
 * logarithm below 1e-12 for arguments up to 1e4, absolute error below 1e-6 at 1e7 (where ln Γ itself is 1.5e8).
 */

const HALF_LOG_TWO_PI = 0.918_938_533_204_672_8;
/** Steps of a continued fraction; the incomplete beta function needs about the square root of its larger argument. */
const FRACTION_STEPS_MAX = 20_000;
const FRACTION_TOLERANCE = 1e-15;
/** Lentz's method replaces a zero by this. */
const TINY = 1e-300;

/** ln Γ(x) for x > 0: Stirling's series (Abramowitz and Stegun 6.1.41) from 10 on, the recurrence below it. */
export function logGamma(x: number): number {
  let shift = 0;
  let y = x;
  while (y < 10) {
    shift -= Math.log(y);
    y += 1;
  }
  const inverse = 1 / y;
  const square = inverse * inverse;
  const series =
    inverse *
    (1 / 12 -
      square *
        (1 / 360 -
          square * (1 / 1260 - square * (1 / 1680 - square * (1 / 1188 - (square * 691) / 360_360)))));
  return shift + (y - 0.5) * Math.log(y) - y + HALF_LOG_TWO_PI + series;
}

/** ln B(a, b) for a, b > 0. */
export function logBeta(a: number, b: number): number {
  return logGamma(a) + logGamma(b) - logGamma(a + b);
}

/** ln(1 - e^x) for x <= 0, exact at both ends (Mächler 2012). */
export function logOneMinusExp(x: number): number {
  return x > -Math.LN2 ? Math.log(-Math.expm1(x)) : Math.log1p(-Math.exp(x));
}

/** ln(e^a + e^b). */
export function logAdd(a: number, b: number): number {
  const high = Math.max(a, b);
  return high === Number.NEGATIVE_INFINITY ? high : high + Math.log1p(Math.exp(Math.min(a, b) - high));
}

/** Both tails of a distribution at one point, as logarithms. */
export interface LogTails {
  readonly below: number;
  readonly above: number;
}

/**
 * ln I_x(a, b) and ln(1 - I_x(a, b)) of the regularized incomplete beta function: the probabilities that a Beta(a, b) variable is
 * below and above x. Continued fraction of DLMF 8.17.22 by Lentz's method, on the side where it converges.
 */
export function logIncompleteBeta(x: number, a: number, b: number): LogTails {
  if (x <= 0) return { below: Number.NEGATIVE_INFINITY, above: 0 };
  if (x >= 1) return { below: 0, above: Number.NEGATIVE_INFINITY };
  const front = a * Math.log(x) + b * Math.log1p(-x) - logBeta(a, b);
  if (x * (a + b + 2) < a + 1) {
    const below = Math.min(0, front - Math.log(a) + Math.log(betaFraction(x, a, b)));
    return { below, above: logOneMinusExp(below) };
  }
  const above = Math.min(0, front - Math.log(b) + Math.log(betaFraction(1 - x, b, a)));
  return { below: logOneMinusExp(above), above };
}

function betaFraction(x: number, a: number, b: number): number {
  let c = 1;
  let d = 1 / nonZero(1 - ((a + b) * x) / (a + 1));
  let value = d;
  for (let m = 1; m <= FRACTION_STEPS_MAX; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonZero(1 + even * d);
    c = nonZero(1 + even / c);
    value *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonZero(1 + odd * d);
    c = nonZero(1 + odd / c);
    const factor = d * c;
    value *= factor;
    if (Math.abs(factor - 1) < FRACTION_TOLERANCE) break;
  }
  return value;
}

function nonZero(value: number): number {
  return Math.abs(value) < TINY ? TINY : value;
}

/** ln P(Z > x) of a standard normal Z: series of Abramowitz and Stegun 26.2.11 in the middle, Mills' ratio (26.2.14) in the tails. */
export function logNormalTail(x: number): number {
  if (x < 0) return logOneMinusExp(Math.min(0, logNormalTail(-x)));
  const logDensity = -0.5 * x * x - HALF_LOG_TWO_PI;
  if (x > 3) {
    let fraction = x;
    for (let k = 120; k >= 1; k--) fraction = x + k / fraction;
    return logDensity - Math.log(fraction);
  }
  let term = x;
  let sum = x;
  for (let k = 1; term > sum * 1e-17 && k < 200; k++) {
    term *= (x * x) / (2 * k + 1);
    sum += term;
  }
  return Math.log(0.5 - sum * Math.exp(logDensity));
}

/** ln P(T > t) of Student's t with `degrees` of freedom. */
export function logStudentTail(t: number, degrees: number): number {
  const half = logIncompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5).below - Math.LN2;
  return t >= 0 ? half : logOneMinusExp(half);
}

/**
 * Where an increasing function crosses zero, by bisection of [low, high]; an end where it does not cross. To 1e-12 relative, or
 * as exact as doubles are.
 */
export function findRoot(increasing: (x: number) => number, low: number, high: number): number {
  let a = low;
  let b = high;
  for (let step = 0; step < 100 && b - a > 1e-12 * Math.max(Math.abs(a), Math.abs(b)); step++) {
    const middle = (a + b) / 2;
    if (increasing(middle) < 0) a = middle;
    else b = middle;
  }
  return (a + b) / 2;
}

/** From so many degrees of freedom on, Student's distribution is the normal one to 1e-6 of z. */
const DEGREES_MAX = 1e7;
/** Beyond this a normal tail is below 1e-300 000: nothing that is measured gets there. */
const NORMAL_MAX = 1200;

/** The standard normal quantile z with the same tail probability as `t` of Student's distribution; monotone, odd. */
export function studentToNormal(t: number, degrees: number): number {
  if (!(Math.abs(t) > 0)) return 0;
  if (t < 0) return -studentToNormal(-t, degrees);
  if (degrees > DEGREES_MAX) return t;
  const tail = logStudentTail(t, degrees);
  // A normal tail is the thinner: z <= t.
  return findRoot((z) => tail - logNormalTail(z), 0, Math.min(t, NORMAL_MAX));
}

/** Its inverse; infinite where Student's distribution has no such quantile within 1e12. */
export function normalToStudent(z: number, degrees: number): number {
  if (!(Math.abs(z) > 0)) return 0;
  if (z < 0) return -normalToStudent(-z, degrees);
  if (degrees > DEGREES_MAX) return z;
  if (z >= NORMAL_MAX) return Number.POSITIVE_INFINITY;
  const tail = logNormalTail(z);
  // On a logarithmic scale: with one degree of freedom, quantiles grow by a factor of ten for each power of ten.
  const logT = findRoot((x) => tail - logStudentTail(Math.exp(x), degrees), Math.log(z), Math.log(1e12));
  return logT > Math.log(0.99e12) ? Number.POSITIVE_INFINITY : Math.exp(logT);
}
