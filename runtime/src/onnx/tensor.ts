import { create, isFieldSet } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType } from "../backend.js";
import { ARRAY_OF } from "../package/tensor-bytes.js";
import {
  TensorProto_DataLocation,
  TensorProto_DataType,
  TensorProtoSchema,
  type TensorProto,
} from "./generated/onnx_pb.js";

const ELEMENT_TYPES: ReadonlyMap<number, ElementType> = new Map([
  [TensorProto_DataType.FLOAT, "float32"],
  [TensorProto_DataType.DOUBLE, "float64"],
  [TensorProto_DataType.FLOAT16, "float16"],
  [TensorProto_DataType.INT8, "int8"],
  [TensorProto_DataType.UINT8, "uint8"],
  [TensorProto_DataType.INT16, "int16"],
  [TensorProto_DataType.UINT16, "uint16"],
  [TensorProto_DataType.INT32, "int32"],
  [TensorProto_DataType.UINT32, "uint32"],
  [TensorProto_DataType.INT64, "int64"],
  [TensorProto_DataType.UINT64, "uint64"],
  [TensorProto_DataType.BOOL, "bool"],
  [TensorProto_DataType.STRING, "string"],
]);

const DATA_TYPES: ReadonlyMap<ElementType, TensorProto_DataType> = new Map(
  [...ELEMENT_TYPES].map(([dataType, elementType]) => [elementType, dataType]),
);

/** Our name of an ONNX data type number; throws `onnx_unsupported` for bfloat16, float8, 4-bit and complex types. */
export function elementTypeOf(dataType: number): ElementType {
  const elementType = ELEMENT_TYPES.get(dataType);
  if (!elementType) {
    const name = TensorProto_DataType[dataType] ?? String(dataType);
    throw new FieldloopError("onnx_unsupported", `Read ONNX: element type ${name} is not supported`);
  }
  return elementType;
}

/** The ONNX data type number of one of our element types. */
export function dataTypeOf(elementType: ElementType): TensorProto_DataType {
  return DATA_TYPES.get(elementType)!;
}

/** Element type of a tensor. */
export function tensorElementType(tensor: TensorProto): ElementType {
  return elementTypeOf(tensor.dataType);
}

/** Dimensions as numbers; throws `onnx_malformed` for a negative one or one past 2^53. */
export function tensorDims(tensor: TensorProto): number[] {
  return tensor.dims.map((dim) => {
    const value = Number(dim);
    if (value < 0 || !Number.isSafeInteger(value)) {
      throw new FieldloopError("onnx_malformed", `Read tensor "${tensor.name}": dimension ${dim}`);
    }
    return value;
  });
}

/** Number of elements that the dimensions claim; 1 for a scalar. */
export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

/** Values of a float32, float16 or float64 tensor as a fresh Float32Array, whichever field holds them. */
export function tensorToFloat32(tensor: TensorProto): Float32Array {
  refuseExternal(tensor);
  const count = elementCount(tensorDims(tensor));
  switch (tensor.dataType) {
    case TensorProto_DataType.FLOAT:
      if (isRaw(tensor)) return new Float32Array(copyRaw(tensor, count, 4));
      return Float32Array.from(sized(tensor, tensor.floatData, count));
    case TensorProto_DataType.DOUBLE:
      if (isRaw(tensor)) return Float32Array.from(new Float64Array(copyRaw(tensor, count, 8)));
      return Float32Array.from(sized(tensor, tensor.doubleData, count));
    case TensorProto_DataType.FLOAT16: {
      const bits = isRaw(tensor)
        ? new Uint16Array(copyRaw(tensor, count, 2))
        : sized(tensor, tensor.int32Data, count);
      return Float32Array.from(bits, halfToNumber);
    }
    default:
      throw wrongType(tensor, "a float tensor");
  }
}

/**
 * Values of an integer or bool tensor as numbers. int64 values beyond 2^53 are clamped to the safe range: exporters
 * write INT64_MAX for "to the end" in Slice.
 */
export function tensorToInt64Numbers(tensor: TensorProto): number[] {
  refuseExternal(tensor);
  const count = elementCount(tensorDims(tensor));
  const raw = isRaw(tensor);
  switch (tensor.dataType) {
    case TensorProto_DataType.INT64:
      return Array.from(
        raw ? new BigInt64Array(copyRaw(tensor, count, 8)) : sized(tensor, tensor.int64Data, count),
        clampToNumber,
      );
    case TensorProto_DataType.UINT64:
      return Array.from(
        raw ? new BigUint64Array(copyRaw(tensor, count, 8)) : sized(tensor, tensor.uint64Data, count),
        clampToNumber,
      );
    case TensorProto_DataType.UINT32:
      if (raw) return Array.from(new Uint32Array(copyRaw(tensor, count, 4)));
      return sized(tensor, tensor.uint64Data, count).map(Number);
    case TensorProto_DataType.INT32:
      return raw ? Array.from(new Int32Array(copyRaw(tensor, count, 4))) : int32s(tensor, count);
    case TensorProto_DataType.INT16:
      return raw ? Array.from(new Int16Array(copyRaw(tensor, count, 2))) : int32s(tensor, count);
    case TensorProto_DataType.UINT16:
      return raw ? Array.from(new Uint16Array(copyRaw(tensor, count, 2))) : int32s(tensor, count);
    case TensorProto_DataType.INT8:
      return raw ? Array.from(new Int8Array(copyRaw(tensor, count, 1))) : int32s(tensor, count);
    case TensorProto_DataType.UINT8:
    case TensorProto_DataType.BOOL:
      return raw ? Array.from(new Uint8Array(copyRaw(tensor, count, 1))) : int32s(tensor, count);
    default:
      throw wrongType(tensor, "an integer tensor");
  }
}

/** A float32 tensor; the data is copied. */
export function float32Tensor(name: string, dims: readonly number[], data: ArrayLike<number>): TensorProto {
  return rawTensor(name, TensorProto_DataType.FLOAT, dims, Float32Array.from(data));
}

/** An int64 tensor from plain integers. */
export function int64Tensor(name: string, dims: readonly number[], data: ArrayLike<number>): TensorProto {
  return rawTensor(name, TensorProto_DataType.INT64, dims, BigInt64Array.from(Array.from(data, BigInt)));
}

export function int32Tensor(name: string, dims: readonly number[], data: ArrayLike<number>): TensorProto {
  return rawTensor(name, TensorProto_DataType.INT32, dims, Int32Array.from(data));
}

export function int8Tensor(name: string, dims: readonly number[], data: ArrayLike<number>): TensorProto {
  return rawTensor(name, TensorProto_DataType.INT8, dims, Int8Array.from(data));
}

export function uint8Tensor(name: string, dims: readonly number[], data: ArrayLike<number>): TensorProto {
  return rawTensor(name, TensorProto_DataType.UINT8, dims, Uint8Array.from(data));
}

export function boolTensor(name: string, dims: readonly number[], data: ArrayLike<boolean>): TensorProto {
  return rawTensor(name, TensorProto_DataType.BOOL, dims, Uint8Array.from(Array.from(data, Number)));
}

/** A rank-0 float32 tensor. */
export function scalarFloat32Tensor(name: string, value: number): TensorProto {
  return float32Tensor(name, [], [value]);
}

/** A rank-0 int8 tensor. */
export function scalarInt8Tensor(name: string, value: number): TensorProto {
  return int8Tensor(name, [], [value]);
}

/** A rank-0 uint8 tensor. */
export function scalarUint8Tensor(name: string, value: number): TensorProto {
  return uint8Tensor(name, [], [value]);
}

/** The number nearest to the IEEE 754 binary16 value with these bits. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** True when a tensor's values are in another file, or in a place that ONNX Runtime reads from memory. */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === TensorProto_DataLocation.EXTERNAL || tensor.externalData.length > 0;
}

function rawTensor(
  name: string,
  dataType: TensorProto_DataType,
  dims: readonly number[],
  data: ArrayBufferView & { readonly length: number },
): TensorProto {
  if (data.length !== elementCount(dims)) {
    throw new FieldloopError(
      "invalid_argument",
      `Build tensor "${name}": ${data.length} values for dimensions [${dims.join(",")}]`,
    );
  }
  return create(TensorProtoSchema, {
    name,
    dataType,
    dims: dims.map(BigInt),
    rawData: new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength),
  });
}

function isRaw(tensor: TensorProto): boolean {
  return isFieldSet(tensor, TensorProtoSchema.field.rawData);
}

/** A copy, because a decoded view starts at any byte and typed arrays need alignment. */
function copyRaw(tensor: TensorProto, count: number, elementBytes: number): ArrayBuffer {
  const wanted = count * elementBytes;
  if (tensor.rawData.length !== wanted) {
    throw new FieldloopError(
      "onnx_malformed",
      `Read tensor "${tensor.name}": ${tensor.rawData.length} bytes for dimensions [${tensor.dims.join(",")}], ${wanted} wanted`,
    );
  }
  const copy = new ArrayBuffer(wanted);
  new Uint8Array(copy).set(tensor.rawData);
  return copy;
}

function sized<T>(tensor: TensorProto, values: T[], count: number): T[] {
  if (values.length === count) return values;
  throw new FieldloopError(
    "onnx_malformed",
    `Read tensor "${tensor.name}": ${values.length} values for dimensions [${tensor.dims.join(",")}], ${count} wanted`,
  );
}

function int32s(tensor: TensorProto, count: number): number[] {
  return [...sized(tensor, tensor.int32Data, count)];
}

/** A number for an int64, clamped to the range where numbers are exact; exporters write INT64_MAX for "to the end". */
export function clampToNumber(value: bigint): number {
  const limit = BigInt(Number.MAX_SAFE_INTEGER);
  if (value > limit) return Number.MAX_SAFE_INTEGER;
  return value < -limit ? -Number.MAX_SAFE_INTEGER : Number(value);
}

function refuseExternal(tensor: TensorProto): void {
  if (!isExternal(tensor)) return;
  throw new FieldloopError("onnx_external_data", `Read tensor "${tensor.name}": its data is in another file`);
}

function wrongType(tensor: TensorProto, wanted: string): FieldloopError {
  const found = TensorProto_DataType[tensor.dataType] ?? String(tensor.dataType);
  return new FieldloopError(
    "onnx_unsupported",
    `Read tensor "${tensor.name}": element type ${found}, wanted ${wanted}`,
  );
}

/**
 * Values of a numeric tensor as raw little-endian bytes, a copy, whichever field holds them.
 * @throws FieldloopError `onnx_external_data`, `onnx_malformed`, `onnx_unsupported` for types without a whole number of bytes
 */
export function tensorRawBytes(tensor: TensorProto): Uint8Array {
  refuseExternal(tensor);
  const count = elementCount(tensorDims(tensor));
  const type = tensorElementType(tensor);
  if (type === "string") throw wrongType(tensor, "a numeric tensor");
  const array = ARRAY_OF[type];
  if (isRaw(tensor)) return new Uint8Array(copyRaw(tensor, count, array.BYTES_PER_ELEMENT));
  switch (tensor.dataType) {
    case TensorProto_DataType.FLOAT:
      return bytesOf(Float32Array.from(sized(tensor, tensor.floatData, count)));
    case TensorProto_DataType.DOUBLE:
      return bytesOf(Float64Array.from(sized(tensor, tensor.doubleData, count)));
    case TensorProto_DataType.INT64:
      return bytesOf(BigInt64Array.from(sized(tensor, tensor.int64Data, count)));
    case TensorProto_DataType.UINT64:
      return bytesOf(BigUint64Array.from(sized(tensor, tensor.uint64Data, count)));
    case TensorProto_DataType.UINT32:
      return bytesOf(Uint32Array.from(sized(tensor, tensor.uint64Data, count), Number));
    default:
      return bytesOf((array as Int32ArrayConstructor).from(int32s(tensor, count)));
  }
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
}
