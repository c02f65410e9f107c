import { FieldloopError, type WindowInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";

/**
 * A window as the model's input: checked, normalized, shaped. `zscore` uses the mean and the population deviation of the
 * whole window (all channels together); a constant window becomes zeros.
 * @throws FieldloopError `window_invalid` for another length or a value that is not finite
 */
export function windowTensor(input: WindowInput, samples: Float32Array): Tensor {
  const length = input.length * input.channels;
  if (samples.length !== length) {
    throw new FieldloopError(
      "window_invalid",
      `Read window for "${input.name}": ${samples.length} values, wanted ${input.length}×${input.channels} = ${length}`,
    );
  }
  const data = new Float32Array(length);
  let sum = 0;
  for (let at = 0; at < length; at++) sum += samples[at]!;
  if (!Number.isFinite(sum)) {
    const at = samples.findIndex((value) => !Number.isFinite(value));
    throw new FieldloopError(
      "window_invalid",
      `Read window for "${input.name}": value ${at} is ${samples[at]}, wanted finite numbers`,
    );
  }
  const { mean, scale } = normalization(input, samples, sum / length);
  for (let at = 0; at < length; at++) data[at] = (samples[at]! - mean) * scale;
  return { type: "float32", dims: windowDims(input), data };
}

/** The declared dims with a dynamic first dimension as 1, or [1, length · channels]. */
export function windowDims(input: WindowInput): number[] {
  if (input.dims.length === 0) return [1, input.length * input.channels];
  return input.dims.map((size) => (size === 0 ? 1 : size));
}

function normalization(
  input: WindowInput,
  samples: Float32Array,
  mean: number,
): { mean: number; scale: number } {
  switch (input.normalization) {
    case "none":
      return { mean: 0, scale: 1 };
    case "fixed":
      return { mean: input.mean, scale: 1 / input.std };
    case "zscore": {
      let squares = 0;
      for (let at = 0; at < samples.length; at++) squares += (samples[at]! - mean) ** 2;
      const deviation = Math.sqrt(squares / samples.length);
      return { mean, scale: deviation > 0 ? 1 / deviation : 0 };
    }
  }
}
