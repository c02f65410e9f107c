import { FieldloopError, type WindowInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { dimsFor, encodeElements } from "./elements.js";
import { FeatureExtractor } from "./features.js";

/** A window made ready, and what the stream's next one begins with. */
export interface PreparedWindow {
  readonly tensor: Tensor;
  /** The `context` samples before the next window, before normalization; absent where the input has no context. */
  readonly context?: Float32Array;
}

/** Turns windows of one input into its tensor: context, normalization, features or layout, element type. */
export class WindowPreparer {
  readonly dims: readonly number[];
  readonly #input: WindowInput;
  readonly #features: FeatureExtractor | undefined;
  /** Of `fixed`, one a channel. */
  readonly #means: readonly number[];
  readonly #scales: readonly number[];

  /** @throws FieldloopError `manifest_invalid` where dims, features and element type contradict each other */
  constructor(input: WindowInput) {
    this.#input = input;
    const { name, features, channels } = input;
    if (input.elementType === "string") {
      throw new FieldloopError("manifest_invalid", `Prepare window "${name}": element type "string"`);
    }
    if (features !== undefined && channels !== 1) {
      throw new FieldloopError(
        "manifest_invalid",
        `Prepare window "${name}": features of ${channels} channels, wanted one`,
      );
    }
    this.#means = perChannel(input, "mean");
    this.#scales = perChannel(input, "std").map((std) => 1 / std);
    const length = (input.context + input.length) * channels;
    this.#features =
      features === undefined ? undefined : new FeatureExtractor(name, features, length, input.sampleRateHz);
    const count = this.#features === undefined ? length : this.#features.frames * this.#features.size;
    this.dims = dimsFor(name, input.dims, count);
  }

  /**
   * `zscore` uses the mean and the population deviation of everything the model sees (context, all channels together); a
   * constant window becomes zeros.
   * @param before the stream's {@link PreparedWindow.context}; zeros where there is none yet
   * @throws FieldloopError `window_invalid` for another length or a value that is not finite
   */
  prepare(samples: Float32Array, before?: Float32Array): PreparedWindow {
    const input = this.#input;
    const fresh = input.length * input.channels;
    if (samples.length !== fresh) {
      throw new FieldloopError(
        "window_invalid",
        `Read window for "${input.name}": ${samples.length} values, wanted ${input.length}×${input.channels} = ${fresh}`,
      );
    }
    const kept = input.context * input.channels;
    const data = new Float32Array(kept + fresh);
    if (before !== undefined) data.set(before);
    data.set(samples, kept);
    // Windows that overlap go back: what lies before the next one is not the end of this one.
    const next = Math.min(input.hop * input.channels, fresh);
    const context = kept === 0 ? undefined : data.slice(next, next + kept);
    this.#normalize(data);
    const values = this.#features?.extract(data) ?? laidOut(input, data);
    const type = input.elementType;
    // The constructor lets no text through.
    if (type === "string") throw new FieldloopError("internal", "A window of text");
    const tensor: Tensor = {
      type,
      dims: this.dims,
      data: encodeElements(type, values, input.quantization),
    };
    return context === undefined ? { tensor } : { tensor, context };
  }

  #normalize(data: Float32Array): void {
    const input = this.#input;
    let sum = 0;
    for (let at = 0; at < data.length; at++) sum += data[at]!;
    if (!Number.isFinite(sum)) {
      const at = data.findIndex((value) => !Number.isFinite(value));
      throw new FieldloopError(
        "window_invalid",
        `Read window for "${input.name}": value ${at - input.context * input.channels} is ${data[at]}, wanted finite numbers`,
      );
    }
    if (input.normalization === "none") return;
    const zscore = input.normalization === "zscore";
    const means = zscore ? [sum / data.length] : this.#means;
    const scales = zscore ? [scaleOf(data, sum / data.length)] : this.#scales;
    for (let at = 0, channel = 0; at < data.length; at++) {
      data[at] = (data[at]! - means[channel]!) * scales[channel]!;
      if (++channel === means.length) channel = 0;
    }
  }
}

/** One window at the start of its stream: see {@link WindowPreparer}. */
export function windowTensor(input: WindowInput, samples: Float32Array): Tensor {
  return new WindowPreparer(input).prepare(samples).tensor;
}

/** One over the population deviation; 0 where nothing deviates. */
function scaleOf(data: Float32Array, mean: number): number {
  let squares = 0;
  for (let at = 0; at < data.length; at++) squares += (data[at]! - mean) ** 2;
  const deviation = Math.sqrt(squares / data.length);
  return deviation > 0 ? 1 / deviation : 0;
}

/** One value for each channel. */
function perChannel(input: WindowInput, field: "mean" | "std"): number[] {
  const values = [input[field]].flat();
  if (values.length === input.channels) return values;
  if (values.length === 1) return Array.from({ length: input.channels }, () => values[0]!);
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare window "${input.name}": ${values.length} values of ${field}, wanted 1 or ${input.channels}`,
  );
}

/** Interleaved samples in the layout of the tensor. */
function laidOut({ layout, channels }: WindowInput, data: Float32Array): Float32Array {
  if (layout !== "channel-time" || channels === 1) return data;
  const turned = new Float32Array(data.length);
  const length = data.length / channels;
  for (let channel = 0, to = 0; channel < channels; channel++) {
    for (let at = 0, from = channel; at < length; at++, from += channels) turned[to++] = data[from]!;
  }
  return turned;
}
