import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType, Tensor, TensorData } from "../backend.js";

/** Number of elements of a tensor with these dims; 1 for a scalar. */
export function elementCountOf(dims: readonly number[]): number {
  let count = 1;
  for (const size of dims) count *= size;
  return count;
}

/** Which array carries an element type's values; float16 travels as bits, bool as 0 and 1. */
export const ARRAY_OF = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const satisfies Record<Exclude<ElementType, "string">, unknown>;

export type NumericType = Exclude<ElementType, "string">;
export type NumericData = Exclude<TensorData, string[]>;

/** Zeros of an element type; float16 as bits. */
export function newElements(type: NumericType, count: number): NumericData {
  return new ARRAY_OF[type](count);
}

/**
 * A tensor from raw little-endian bytes, as golden cases store it. The bytes are copied.
 * @throws FieldloopError `invalid_argument` where the length contradicts type and dims
 */
export function tensorFromBytes(type: ElementType, dims: readonly number[], bytes: Uint8Array): Tensor {
  if (type === "string") {
    throw new FieldloopError("invalid_argument", "Read tensor: text tensors have no raw form");
  }
  const array = ARRAY_OF[type];
  const wanted = elementCountOf(dims) * array.BYTES_PER_ELEMENT;
  if (bytes.length !== wanted) {
    throw new FieldloopError(
      "invalid_argument",
      `Read tensor: ${bytes.length} bytes, ${type}[${dims.join(", ")}] wants ${wanted}`,
    );
  }
  // A copy, because a view must start at a multiple of its element size (and `slice` of a Buffer copies nothing).
  const data: TensorData = new array(new Uint8Array(bytes).buffer);
  return { type, dims: [...dims], data };
}

/** The raw little-endian bytes of a numeric tensor, a copy. */
export function tensorToBytes(tensor: Tensor): Uint8Array {
  const { data } = tensor;
  if (Array.isArray(data)) {
    throw new FieldloopError("invalid_argument", "Write tensor: text tensors have no raw form");
  }
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
}

/**
 * The elements as 32-bit floats: a view where they are, a copy where they are not.
 * @throws FieldloopError `model_output_invalid` for text
 */
export function asFloat32(tensor: Tensor): Float32Array {
  const { data, type } = tensor;
  if (data instanceof Float32Array) return data;
  if (Array.isArray(data)) {
    throw new FieldloopError("model_output_invalid", "Read output: it holds text, wanted numbers");
  }
  if (type === "float16") return Float32Array.from(data as Uint16Array, halfToNumber);
  const values = new Float32Array(data.length);
  for (let at = 0; at < data.length; at++) values[at] = Number(data[at]);
  return values;
}

/** IEEE 754 binary16 bits to a number. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);

/** The nearest IEEE 754 binary16 as bits, ties to even; beyond 65,504 infinity. */
export function numberToHalf(value: number): number {
  FLOAT[0] = value;
  const bits = BITS[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 a half counts steps of 2^-24.
    const steps = Math.abs(FLOAT[0]!) * 2 ** 24;
    const floor = Math.floor(steps);
    const rest = steps - floor;
    return sign | (floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0));
  }
  // The 13 bits that go decide the rounding; a carry runs into the exponent, as it should.
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}
