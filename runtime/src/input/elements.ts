import { FieldloopError, type Affine } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import {
  elementCountOf,
  newElements,
  numberToHalf,
  type NumericData,
  type NumericType,
} from "../package/tensor-bytes.js";
import { roundHalfEven } from "../quantize/numeric.js";
import { INPUT_LIMITS } from "./limits.js";

/** Least and largest value of the integer types; those of 64 bits as far as numbers are exact. */
type IntegerType = Exclude<NumericType, "float32" | "float64" | "float16" | "bool">;
const INTEGER_RANGES: Readonly<Record<IntegerType, readonly [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-32_768, 32_767],
  uint16: [0, 65_535],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint64: [0, Number.MAX_SAFE_INTEGER],
};

/** One element's value: rounded to even and clipped for integers, as bits for float16, 0 or 1 for bool. */
export function encodeElement(type: NumericType, value: number): number {
  if (type === "float32" || type === "float64") return value;
  if (type === "float16") return numberToHalf(value);
  if (type === "bool") return value === 0 ? 0 : 1;
  const [min, max] = INTEGER_RANGES[type];
  return Math.min(Math.max(roundHalfEven(value), min), max);
}

/**
 * Numbers as the elements of a tensor; with `quantization`, `round(value / scale) + zeroPoint` (ONNX QuantizeLinear).
 * A Float32Array for float32 is returned as it is.
 */
export function encodeElements(
  type: NumericType,
  values: Float32Array | Float64Array,
  quantization?: Affine,
): NumericData {
  if (type === "float32" && values instanceof Float32Array) return values;
  const scale = quantization?.scale ?? 1;
  const zeroPoint = quantization?.zeroPoint ?? 0;
  const data = newElements(type, values.length);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    for (let at = 0; at < values.length; at++) {
      data[at] = BigInt(encodeElement(type, roundHalfEven(values[at]! / scale) + zeroPoint));
    }
    return data;
  }
  const isInteger = type in INTEGER_RANGES;
  for (let at = 0; at < values.length; at++) {
    const value = isInteger ? roundHalfEven(values[at]! / scale) + zeroPoint : values[at]!;
    data[at] = encodeElement(type, value);
  }
  return data;
}

/** Declared dims with dynamic ones as 1. */
export function concreteDims(dims: readonly number[]): number[] {
  return dims.map((size) => (size === 0 ? 1 : size));
}

/**
 * Zeros in the declared dims, dynamic ones as 1.
 * @throws FieldloopError `manifest_invalid` beyond {@link INPUT_LIMITS.elementsMax} values
 */
export function zeroTensor(name: string, type: NumericType, declared: readonly number[]): Tensor {
  const dims = concreteDims(declared);
  const count = elementCountOf(dims);
  if (count > INPUT_LIMITS.elementsMax) {
    throw new FieldloopError(
      "manifest_invalid",
      `Prepare input "${name}": dims [${declared.join(", ")}] hold ${count} values, at most ${INPUT_LIMITS.elementsMax} allowed`,
    );
  }
  return { type, dims, data: newElements(type, count) };
}

/**
 * Declared dims for `count` values, [1, count] where there are none. A dynamic one is 1; where that leaves too few, the
 * last of them takes the rest: [0, 0] for 512 values is [1, 512].
 * @throws FieldloopError `manifest_invalid` where the dims hold another number of values
 */
export function dimsFor(name: string, declared: readonly number[], count: number): number[] {
  if (declared.length === 0) return [1, count];
  const dims = concreteDims(declared);
  const product = elementCountOf(dims);
  const last = declared.lastIndexOf(0);
  if (last >= 0 && count % product === 0) dims[last] = count / product;
  if (elementCountOf(dims) === count) return dims;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare input "${name}": dims [${declared.join(", ")}] hold ${product} values, its frames have ${count}`,
  );
}
