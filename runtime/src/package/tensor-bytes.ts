import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType, Tensor, TensorData } from "../backend.js";

/** Number of elements of a tensor with these dims; 1 for a scalar. */
export function elementCountOf(dims: readonly number[]): number {
  let count = 1;
  for (const size of dims) count *= size;
  return count;
}

const NUMERIC = {
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
} as const;

/**
 * A tensor from raw little-endian bytes, as golden cases store it. The bytes are copied.
 * @throws FieldloopError `invalid_argument` where the length contradicts type and dims
 */
export function tensorFromBytes(type: ElementType, dims: readonly number[], bytes: Uint8Array): Tensor {
  if (type === "string") {
    throw new FieldloopError("invalid_argument", "Read tensor: text tensors have no raw form");
  }
  const array = NUMERIC[type];
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
