import { logNormalMixture, normalMixtureBar } from "./normal-mixture.js";
import type { Bounds } from "./binomial-mixture.js";
import { normalToStudent, studentToNormal } from "./special.js";

/**
 * Comparisons with the device as the unit. Predictions of one device resemble each other, so a thousand of them are not a thousand
 * witnesses; what varies between devices is what an estimate's error is made of, and only counting devices measures it.
 */

/** What one arm says of one number, with the variance that its own devices show. */
export interface ArmEstimate {
  readonly value: number;
  /** Of `value`, not of one device. */
  readonly variance: number;
  /** Devices that it rests on; fewer than their number where few of them carry the weight (Kish 1965). */
  readonly units: number;
}

export interface Contrast {
  /** Canary minus control. */
  readonly value: number;
  readonly standardError: number;
  /** Welch and Satterthwaite's: how well the standard error itself is known. */
  readonly degrees: number;
}

/** A device's total: `sum` over `weight` observations, e.g. 190 right of 200 judged. */
export interface Total {
  readonly sum: number;
  readonly weight: number;
}

/** Deviations beyond this many robust standard deviations count as this many. */
const CLIP = 5;
/** Median absolute deviation of a normal variable, to its standard deviation. */
const MAD_TO_DEVIATION = 1.4826;

/** Mean over the devices of an arm, each with the same weight. @param values at least two */
export function meanOfDevices(values: readonly number[]): ArmEstimate {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    value: mean,
    variance: squares / (values.length - 1) / values.length,
    units: values.length,
  };
}

/**
 * Both arms with their outliers pulled in to `CLIP` robust standard deviations from their arm's median (winsorized; Yuen 1974, by
 * a scale common to both arms): one device that throttles must not hide, or be, the effect.
 */
export function clipOutliers(arms: readonly (readonly number[])[]): number[][] {
  const medians = arms.map(median);
  const scale =
    MAD_TO_DEVIATION * median(arms.flatMap((arm, at) => arm.map((value) => Math.abs(value - medians[at]!))));
  // Where half of the devices are equal there is no scale to go by.
  if (!(scale > 0)) return arms.map((arm) => [...arm]);
  return arms.map((arm, at) =>
    arm.map((value) => {
      const middle = medians[at]!;
      return Math.min(Math.max(value, middle - CLIP * scale), middle + CLIP * scale);
    }),
  );
}

function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return 0;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * Share over all observations of an arm, during minus before (`before` null: during alone), with the variance between devices by
 * linearization (ratio estimate; Woodruff 1971, as in cluster sampling). Never below that of as many independent observations, which small
 * samples without any failure would suggest (Agresti and Coull's added successes and failures).
 */
export function shareOfDevices(
  devices: readonly { readonly during: Total; readonly before: Total | null }[],
): ArmEstimate {
  const columns = { during: makeColumn(devices.length), before: makeColumn(devices.length) };
  for (let at = 0; at < devices.length; at++) {
    const { during, before } = devices[at]!;
    columns.during.sums[at] = during.sum;
    columns.during.weights[at] = during.weight;
    if (!before) continue;
    columns.before.sums[at] = before.sum;
    columns.before.weights[at] = before.weight;
  }
  return shareOfColumns(columns.during, columns.before);
}

/** Totals of the devices of an arm, side by side; zeros where a device has none. */
export interface Column {
  readonly sums: Float64Array;
  readonly weights: Float64Array;
}

export function makeColumn(count: number): Column {
  return { sums: new Float64Array(count), weights: new Float64Array(count) };
}

/** {@link shareOfDevices} of columns: a gate asks it for each class of thousands of devices. */
export function shareOfColumns(duringColumn: Column, beforeColumn: Column): ArmEstimate {
  const during = addColumn(duringColumn);
  const before = addColumn(beforeColumn);
  const count = duringColumn.sums.length;
  let squares = 0;
  let weightSquares = 0;
  const [duringRatio, beforeRatio] = [ratio(during), ratio(before)];
  for (let at = 0; at < count; at++) {
    const weight = duringColumn.weights[at]!;
    weightSquares += weight * weight;
    // A device's part in the error of its arm's ratio.
    let part = during.weight > 0 ? (duringColumn.sums[at]! - duringRatio * weight) / during.weight : 0;
    if (before.weight > 0)
      part -= (beforeColumn.sums[at]! - beforeRatio * beforeColumn.weights[at]!) / before.weight;
    squares += part * part;
  }
  const between = count > 1 ? (squares * count) / (count - 1) : 0;
  const within = binomialVariance(during) + (before.weight > 0 ? binomialVariance(before) : 0);
  return {
    value: ratio(during) - (before.weight > 0 ? ratio(before) : 0),
    variance: Math.max(between, within),
    units: weightSquares > 0 ? during.weight ** 2 / weightSquares : 0,
  };
}

function addColumn({ sums, weights }: Column): Total {
  let sum = 0;
  let weight = 0;
  for (let at = 0; at < sums.length; at++) {
    sum += sums[at]!;
    weight += weights[at]!;
  }
  return { sum, weight };
}

const ratio = ({ sum, weight }: Total): number => (weight > 0 ? sum / weight : 0);

/** Of a share, with one success and one failure added. */
export function binomialVariance({ sum, weight }: Total): number {
  const share = (sum + 1) / (weight + 2);
  return (share * (1 - share)) / Math.max(weight, 1);
}

export function contrastOf(canary: ArmEstimate, control: ArmEstimate): Contrast {
  const variance = canary.variance + control.variance;
  const spent =
    canary.variance ** 2 / Math.max(canary.units - 1, 1e-9) +
    control.variance ** 2 / Math.max(control.units - 1, 1e-9);
  return {
    value: canary.value - control.value,
    standardError: Math.sqrt(variance),
    degrees: spent > 0 ? Math.max(variance ** 2 / spent, 1e-3) : 1,
  };
}

/**
 * ln of the evidence against "the contrast is at most `limit`". Student's statistic is taken to the normal one of the same tail
 * probability (Jennison and Turnbull 2000, section 4.4), so that few devices do not pass for many.
 * @param scale size of effects that matter, in the contrast's unit
 */
export function contrastEvidence(
  { value, standardError, degrees }: Contrast,
  limit: number,
  scale: number,
): number {
  if (!(standardError > 0)) return 0;
  const z = studentToNormal((value - limit) / standardError, degrees);
  return logNormalMixture(z, (scale / standardError) ** 2);
}

/** Confidence sequence of a contrast, each side with error `alpha` over all looks: all limits that the evidence has not refuted. */
export function contrastBounds(
  { value, standardError, degrees }: Contrast,
  scale: number,
  alpha: number,
): Bounds {
  if (!(standardError > 0)) return { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
  const z = normalMixtureBar(alpha, (scale / standardError) ** 2);
  const half = standardError * normalToStudent(z, degrees);
  return { low: value - half, high: value + half };
}
