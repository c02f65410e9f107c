import { FieldloopError } from "@fieldloop/protocol";
import { elementCount } from "../onnx/tensor.js";
import { weightNear, type NearBase } from "./near-base.js";
import { roundHalfEven, type QuantizedType } from "./numeric.js";

/** Levels of a weight with one scale per channel; `zeroPoint` is the same for all, 0 for int8 and 128 for uint8. */
export interface QuantizedWeight {
  readonly values: Int8Array | Uint8Array;
  readonly zeroPoint: number;
  readonly scales: Float32Array;
  /** With {@link NearBase}: by how much each output is off in the mean, which its bias takes back. */
  readonly meanErrors?: Float64Array;
}

export interface WeightRequest {
  /** Names the weight in errors. */
  readonly name: string;
  readonly data: Float32Array;
  readonly dims: readonly number[];
  /** Axis of the output channels; undefined for one scale over the whole tensor. */
  readonly axis: number | undefined;
  /**
   * 7-bit levels (-64..64): on x86 without VNNI the 8-bit multiply-add saturates at 16 bits when uint8 activations meet
   * full-range weights (ONNX Runtime `quantization.md`, "reduce_range").
   */
  readonly reduceRange: boolean;
  /** int8 by default. */
  readonly type?: QuantizedType;
  /** Narrowest span of a channel, -r/2..r/2: keeps the scale of near-zero channels away from tiny numbers. Default 0. */
  readonly minimumRealRange?: number;
  /** Bias of the same channels and scale of the layer's input, which together bound the scale from below. */
  readonly bias?: Float32Array;
  readonly inputScale?: number;
  /** Scales of an earlier version, kept where they still fit so that unchanged weights give unchanged bytes. */
  readonly baseScales?: readonly number[];
  /** Levels of that version, and what decides how near the new ones stay to them; without it they are rounded. */
  readonly near?: NearBase;
}

/** Levels of weights with 7 bits lie between this and its negative. */
export const REDUCED_LEVEL_MAX = 64;
/** int32 bias levels stay below this, which leaves the accumulator room for the products (255 * 127 * 60,000). */
const BIAS_LEVEL_MAX = 2 ** 30;
/** A kept scale may clip this much of the largest weight, and must use this share of its levels. */
const BASE_CLIP_MAX = 1.02;
const BASE_USE_MIN = 0.7;

/** Quantizes a weight, symmetric (scale = absmax / 127, or / 64 with the reduced range). */
export function quantizeWeight(request: WeightRequest): QuantizedWeight {
  const { data, dims, axis } = request;
  const channelCount = axis === undefined ? 1 : dims[axis]!;
  const inner = axis === undefined ? data.length : elementCount(dims.slice(axis + 1));
  const absMax = channelAbsMax(request, channelCount, inner);
  const levelMax = request.reduceRange ? REDUCED_LEVEL_MAX : 127;
  const scales = channelScales(request, absMax, levelMax);
  const zeroPoint = request.type === "uint8" ? 128 : 0;
  const values = request.type === "uint8" ? new Uint8Array(data.length) : new Int8Array(data.length);
  const { near } = request;
  const { baseScales } = request;
  if (near && near.levels.length === data.length && baseScales?.length === scales.length) {
    const { levels, meanErrors } = weightNear({ ...near, data, scales, baseScales, levelMax });
    for (const [index, level] of levels.entries()) values[index] = level + zeroPoint;
    return { values, zeroPoint, scales, meanErrors };
  }
  for (let index = 0; index < data.length; index++) {
    const channel = channelOf(index, inner, channelCount);
    const level = roundHalfEven(Math.fround(data[index]! / scales[channel]!));
    values[index] = Math.min(levelMax, Math.max(-levelMax, level)) + zeroPoint;
  }
  return { values, zeroPoint, scales };
}

/** int32 levels of a bias, with scale inputScale * weightScale[c] and zero point 0. */
export function quantizeBias(
  bias: Float32Array,
  inputScale: number,
  weightScales: Float32Array,
): { readonly values: Int32Array; readonly scales: Float32Array } {
  const scales = new Float32Array(bias.length);
  const values = new Int32Array(bias.length);
  for (let index = 0; index < bias.length; index++) {
    scales[index] = inputScale * weightScales[weightScales.length === 1 ? 0 : index]!;
    values[index] = roundHalfEven(bias[index]! / scales[index]!);
  }
  return { values, scales };
}

function channelOf(index: number, inner: number, channelCount: number): number {
  return Math.floor(index / inner) % channelCount;
}

function channelAbsMax(request: WeightRequest, channelCount: number, inner: number): Float64Array {
  const absMax = new Float64Array(channelCount);
  for (let index = 0; index < request.data.length; index++) {
    const magnitude = Math.abs(request.data[index]!);
    if (!Number.isFinite(magnitude)) {
      throw new FieldloopError(
        "quantization_rejected",
        `Quantize weight "${request.name}": value ${index} is ${request.data[index]}, not finite`,
      );
    }
    const channel = channelOf(index, inner, channelCount);
    if (magnitude > absMax[channel]!) absMax[channel] = magnitude;
  }
  return absMax;
}

function channelScales(request: WeightRequest, absMax: Float64Array, levelMax: number): Float32Array {
  const largest = absMax.reduce((a, b) => Math.max(a, b), 0);
  const scales = new Float32Array(absMax.length);
  for (let channel = 0; channel < absMax.length; channel++) {
    // A channel of zeros still scales its bias, so it gets a fine scale rather than the customary 1.
    const found = absMax[channel]! > 0 ? absMax[channel]! : (largest || 1) / 256;
    const range = Math.max(found, (request.minimumRealRange ?? 0) / 2);
    let scale = Math.max(Math.fround(range / levelMax), 2 ** -126);
    const base = request.baseScales?.length === absMax.length ? request.baseScales[channel]! : 0;
    const fits =
      base > 0 && range <= base * levelMax * BASE_CLIP_MAX && range >= base * levelMax * BASE_USE_MIN;
    if (fits) scale = base;
    if (request.bias && request.inputScale !== undefined) {
      const bias = Math.abs(request.bias[absMax.length === 1 ? maxIndex(request.bias) : channel]!);
      const floor = bias / (request.inputScale * BIAS_LEVEL_MAX);
      if (scale < floor) scale = Math.fround(floor * 1.0001);
    }
    scales[channel] = scale;
  }
  return scales;
}

function maxIndex(values: Float32Array): number {
  let best = 0;
  for (let index = 1; index < values.length; index++) {
    if (Math.abs(values[index]!) > Math.abs(values[best]!)) best = index;
  }
  return best;
}
