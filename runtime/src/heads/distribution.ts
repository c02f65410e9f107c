/** Probabilities of logits/temperature, stable for large logits. */
export function softmax(logits: Float32Array, temperature = 1): Float32Array {
  const probabilities = new Float32Array(logits.length);
  const highest = maxOf(logits);
  let sum = 0;
  for (let at = 0; at < logits.length; at++) {
    const value = Math.exp((logits[at]! - highest) / temperature);
    probabilities[at] = value;
    sum += value;
  }
  for (let at = 0; at < probabilities.length; at++) probabilities[at]! /= sum;
  return probabilities;
}

/** 1 / (1 + exp(-logit/temperature)) for each value. */
export function sigmoid(logits: Float32Array, temperature = 1): Float32Array {
  const probabilities = new Float32Array(logits.length);
  for (let at = 0; at < logits.length; at++)
    probabilities[at] = 1 / (1 + Math.exp(-logits[at]! / temperature));
  return probabilities;
}

/** -T·logsumexp(logits/T): low where some class is strongly supported (Liu et al. 2020, "Energy-based OOD detection"). */
export function energyOf(logits: Float32Array, temperature = 1): number {
  const highest = maxOf(logits);
  let sum = 0;
  for (let at = 0; at < logits.length; at++) sum += Math.exp((logits[at]! - highest) / temperature);
  return -(highest + temperature * Math.log(sum));
}

/** Entropy of a distribution over its maximum ln(length), 0..1; 0 for a single class. */
export function normalizedEntropy(probabilities: Float32Array): number {
  if (probabilities.length < 2) return 0;
  let sum = 0;
  for (let at = 0; at < probabilities.length; at++) {
    const p = probabilities[at]!;
    if (p > 0) sum -= p * Math.log(p);
  }
  return Math.min(sum / Math.log(probabilities.length), 1);
}

/** Entropy of one yes-or-no probability in bits, 0..1. */
export function binaryEntropy(p: number): number {
  if (p <= 0 || p >= 1) return 0;
  return -(p * Math.log2(p) + (1 - p) * Math.log2(1 - p));
}

/** Index of the highest value, the first of equals; -1 where nothing compares (empty, or NaN everywhere). */
export function argmax(values: Float32Array): number {
  let best = -1;
  let highest = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < values.length; at++) {
    if (values[at]! > highest) {
      highest = values[at]!;
      best = at;
    }
  }
  return best;
}

/** The highest value minus the second highest; the highest alone minus 0 where there is no second. */
export function topMargin(values: Float32Array): number {
  let first = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < values.length; at++) {
    const value = values[at]!;
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) second = value;
  }
  return second === Number.NEGATIVE_INFINITY ? first : first - second;
}

function maxOf(values: Float32Array): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < values.length; at++) if (values[at]! > highest) highest = values[at]!;
  return highest;
}
