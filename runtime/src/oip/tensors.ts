import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType, Tensor, TensorData } from "../backend.js";
import { elementCountOf, newElements, tensorFromBytes, tensorToBytes } from "../package/tensor-bytes.js";
import { OIP_LIMITS } from "./limits.js";
import type { OipDatatype } from "./service.js";

const DATATYPES = {
  float32: "FP32",
  float64: "FP64",
  float16: "FP16",
  int8: "INT8",
  uint8: "UINT8",
  int16: "INT16",
  uint16: "UINT16",
  int32: "INT32",
  uint32: "UINT32",
  int64: "INT64",
  uint64: "UINT64",
  bool: "BOOL",
  string: "BYTES",
} as const satisfies Record<ElementType, OipDatatype>;

const ELEMENT_TYPES = new Map<string, ElementType>(
  Object.entries(DATATYPES).map(([type, datatype]) => [datatype, type as ElementType]),
);

export function datatypeOf(type: ElementType): OipDatatype {
  return DATATYPES[type];
}

/** @throws FieldloopError `tensor_invalid` for a data type that no tensor here can carry */
export function elementTypeOfDatatype(datatype: string): ElementType {
  const type = ELEMENT_TYPES.get(datatype);
  if (type !== undefined) return type;
  throw refuse(`data type "${datatype}" is not one of ${[...ELEMENT_TYPES.keys()].join(", ")}`);
}

/**
 * Sizes that came over the network.
 * @throws FieldloopError `tensor_invalid`, `limit_exceeded`
 */
export function parseShape(shape: readonly (number | bigint)[]): number[] {
  if (shape.length > OIP_LIMITS.rankMax)
    throw refuse(`a rank of ${shape.length}, at most ${OIP_LIMITS.rankMax}`);
  const dims = shape.map(Number);
  let count = 1;
  for (const dim of dims) {
    if (!Number.isSafeInteger(dim) || dim < 0) throw refuse(`a dimension of ${dim}`);
    count *= Math.max(dim, 1);
  }
  if (count > OIP_LIMITS.bodyBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Read tensor: [${dims.join(", ")}] are ${count} elements, at most ${OIP_LIMITS.bodyBytesMax}`,
    );
  }
  return dims;
}

/**
 * Elements as the binary data extension has them: little-endian numbers; each text as its length in 4 bytes, then UTF-8.
 */
export function tensorToRaw(tensor: Tensor): Uint8Array {
  const { data } = tensor;
  if (!Array.isArray(data)) {
    const { buffer, byteOffset, byteLength } = data;
    return LITTLE_ENDIAN ? new Uint8Array(buffer, byteOffset, byteLength) : tensorToBytes(tensor);
  }
  const texts = data.map((text) => ENCODER.encode(text));
  const bytes = new Uint8Array(texts.reduce((sum, text) => sum + 4 + text.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const text of texts) {
    view.setUint32(at, text.length, true);
    bytes.set(text, at + 4);
    at += 4 + text.length;
  }
  return bytes;
}

/**
 * The inverse of {@link tensorToRaw}.
 * @throws FieldloopError `tensor_invalid` where the bytes contradict type and sizes
 */
export function tensorFromRaw(type: ElementType, dims: readonly number[], bytes: Uint8Array): Tensor {
  if (type === "string") return { type, dims, data: textsFromRaw(elementCountOf(dims), bytes) };
  const wanted = elementCountOf(dims) * newElements(type, 0).BYTES_PER_ELEMENT;
  if (bytes.length !== wanted) {
    throw refuse(`${bytes.length} bytes, ${type}[${dims.join(", ")}] wants ${wanted}`);
  }
  return tensorFromBytes(type, dims, bytes);
}

function textsFromRaw(count: number, bytes: Uint8Array): string[] {
  if (count > OIP_LIMITS.jsonElementsMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Read tensor: ${count} texts, at most ${OIP_LIMITS.jsonElementsMax}`,
    );
  }
  const texts: string[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (texts.length < count) {
    if (at + 4 > bytes.length)
      throw refuse(`${texts.length} texts in ${bytes.length} bytes, wanted ${count}`);
    const length = view.getUint32(at, true);
    at += 4;
    if (length > OIP_LIMITS.textBytesMax || at + length > bytes.length) {
      throw refuse(`a text of ${length} bytes where ${bytes.length - at} are left`);
    }
    texts.push(decodeText(bytes.subarray(at, at + length)));
    at += length;
  }
  if (at !== bytes.length) throw refuse(`${bytes.length - at} bytes after the last text`);
  return texts;
}

/** @throws FieldloopError `tensor_invalid` for bytes that are no UTF-8, which a text here can't hold */
export function decodeText(bytes: Uint8Array): string {
  try {
    return DECODER.decode(bytes);
  } catch (cause) {
    throw new FieldloopError("tensor_invalid", "Read tensor: a text is not UTF-8", { cause });
  }
}

/** Elements for JSON, flat. Half floats and numbers that are not finite have no JSON form: `undefined`. */
export function tensorToJsonData(tensor: Tensor): unknown[] | undefined {
  const { type, data } = tensor;
  if (type === "float16") return undefined;
  if (Array.isArray(data)) return data;
  if (type === "bool") return Array.from(data as Uint8Array, (value) => value !== 0);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    // JSON.stringify knows no bigint; sizes beyond 2^53 would change silently, so those go raw.
    const numbers = Array.from(data, Number);
    return numbers.every(Number.isSafeInteger) ? numbers : undefined;
  }
  const values = Array.from(data);
  return type.startsWith("float") && !values.every(Number.isFinite) ? undefined : values;
}

/**
 * A tensor from JSON: elements flat or nested in rows, as the protocol allows both.
 * @throws FieldloopError `tensor_invalid`, `limit_exceeded`
 */
export function tensorFromJsonData(type: ElementType, dims: readonly number[], json: unknown): Tensor {
  const count = elementCountOf(dims);
  if (count > OIP_LIMITS.jsonElementsMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Read tensor: ${count} elements in JSON, at most ${OIP_LIMITS.jsonElementsMax}; send them as binary data`,
    );
  }
  if (type === "float16") throw refuse("FP16 has no JSON form, send it as binary data");
  const values: unknown[] = [];
  flatten(json, values, [...dims.map((_, at) => elementCountOf(dims.slice(at))), 1], 0);
  if (values.length !== count) {
    throw refuse(`${values.length} elements, [${dims.join(", ")}] wants ${count}`);
  }
  return { type, dims, data: type === "string" ? values.map(readText) : numbersOf(type, values) };
}

/** `counts`: elements of the whole, of its rows, of their rows and so on. A row has as many, in rows of its own or flat. */
function flatten(json: unknown, into: unknown[], counts: readonly number[], depth: number): void {
  if (!Array.isArray(json) || depth > OIP_LIMITS.rankMax)
    throw refuse("data is not an array of elements or rows");
  const countMax = counts[depth] ?? 1;
  const begin = into.length;
  for (const value of json) {
    if (Array.isArray(value)) flatten(value, into, counts, depth + 1);
    else into.push(value);
    if (into.length - begin <= countMax) continue;
    throw refuse(`more than the ${countMax} elements of ${depth === 0 ? "its shape" : "a row of its shape"}`);
  }
  const count = into.length - begin;
  if (depth > 0 && count < countMax) throw refuse(`a row of ${count} elements, its shape wants ${countMax}`);
}

function readText(value: unknown): string {
  if (typeof value !== "string") throw refuse(`${typeof value} where a text was wanted`);
  return value;
}

function numbersOf(type: Exclude<ElementType, "string">, values: readonly unknown[]): TensorData {
  const data = newElements(type, values.length);
  values.forEach((value, at) => {
    if (type === "bool") {
      if (typeof value !== "boolean" && value !== 0 && value !== 1)
        throw refuse(`${String(value)} is no truth value`);
      data[at] = value === true || value === 1 ? 1 : 0;
      return;
    }
    if (typeof value !== "number") throw refuse(`${typeof value} where a number was wanted`);
    if (type.startsWith("float")) {
      data[at] = value;
      return;
    }
    if (!Number.isSafeInteger(value)) throw refuse(`${value} is no integer that JSON carries exactly`);
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[at] = BigInt(value);
    else data[at] = value;
    // Typed arrays wrap around without a word.
    if (Number(data[at]) !== value) throw refuse(`${value} does not fit ${type}`);
  });
  return data;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true });
const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function refuse(what: string): FieldloopError {
  return new FieldloopError("tensor_invalid", `Read tensor: ${what}`);
}
