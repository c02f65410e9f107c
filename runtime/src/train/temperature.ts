import { FieldloopError } from "@fieldloop/protocol";

/** Outside these, a temperature says that the data cannot determine it (e.g. no error among the rows). */
export const TEMPERATURE_LIMITS = { min: 0.05, max: 1e4 } as const;

/** Halvings of the logarithmic interval: far below what the data can tell apart. */
const BISECTIONS = 60;

/**
 * Temperature T that minimizes the negative log likelihood of softmax(logits / T) (Guo et al. 2017), within
 * {@link TEMPERATURE_LIMITS}. `logits` is [rows, classes] with one label a row. The likelihood is convex in 1/T, so
 * bisection on its slope finds the one minimum.
 */
export function fitTemperature(logits: Float32Array, labels: ArrayLike<number>): number {
  const rows = labels.length;
  const classes = logits.length / rows;
  if (rows === 0 || !Number.isInteger(classes) || classes < 2) {
    throw new FieldloopError(
      "invalid_argument",
      `Fit temperature: ${logits.length} logits and ${rows} labels do not make rows of two classes or more`,
    );
  }
  let low = Math.log(1 / TEMPERATURE_LIMITS.max);
  let high = Math.log(1 / TEMPERATURE_LIMITS.min);
  for (let k = 0; k < BISECTIONS; k++) {
    const middle = (low + high) / 2;
    if (slope(logits, labels, classes, Math.exp(middle)) < 0) low = middle;
    else high = middle;
  }
  return 1 / Math.exp((low + high) / 2);
}

/** Derivative of the summed negative log likelihood by the factor on the logits: sum (E_p[z] - z_label). */
function slope(logits: Float32Array, labels: ArrayLike<number>, classes: number, factor: number): number {
  let total = 0;
  for (let row = 0; row < labels.length; row++) {
    const start = row * classes;
    let peak = -Infinity;
    for (let k = 0; k < classes; k++) peak = Math.max(peak, logits[start + k]!);
    let sum = 0;
    let expected = 0;
    for (let k = 0; k < classes; k++) {
      const share = Math.exp(factor * (logits[start + k]! - peak));
      sum += share;
      expected += share * logits[start + k]!;
    }
    total += expected / sum - logits[start + labels[row]!]!;
  }
  return total;
}

/** Mean standard deviation of a row of logits: a few units for a usual classifier, hundreds for some imported ones. */
export function logitSpread(logits: Float32Array, classes: number): number {
  const rows = logits.length / classes;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const values = logits.subarray(row * classes, (row + 1) * classes);
    const mean = values.reduce((sum, value) => sum + value, 0) / classes;
    total += Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / classes);
  }
  return total / rows;
}
