import type { DescMessage } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import { ModelProtoSchema, TensorProto_DataType, TensorProtoSchema } from "../onnx/generated/onnx_pb.js";
import { ONNX_LIMITS } from "../onnx/limits.js";
import { fieldsOf, readField, readVarint, scanWire, WIRE_BYTES, WIRE_VARINT } from "../onnx/wire.js";
import { ELEMENT_KINDS, kindOfDataType } from "./elements.js";
import { DELTA_LIMITS } from "./limits.js";

/** Where the numbers of a tensor lie in an ONNX file, in file order and without overlap. */
export interface StoredTensor {
  /** Empty for what has none, such as the values of Constant nodes. */
  readonly name: string;
  /** Index into `ELEMENT_KINDS`. */
  readonly element: number;
  readonly dims: readonly number[];
  readonly start: number;
  readonly end: number;
}

/** Fields of TensorProto (onnx.proto). */
const FIELD = { dims: 1, dataType: 2, floatData: 4, name: 8, rawData: 9 } as const;

/**
 * Finds every tensor of an ONNX file whose numbers lie in it as they are, in graphs, bodies and attributes, on the wire and without
 * recursion. What it says is only a hint to the maker of a delta: a wrong hint makes a larger delta, not a wrong one. A file that is no
 * ONNX has none.
 */
export function findTensors(bytes: Uint8Array): StoredTensor[] {
  try {
    scanWire(bytes, ModelProtoSchema);
    return walk(bytes);
  } catch (error) {
    if (error instanceof FieldloopError && error.code.startsWith("onnx_")) return [];
    throw error;
  }
}

function walk(bytes: Uint8Array): StoredTensor[] {
  const found: StoredTensor[] = [];
  const stack: { message: DescMessage; at: number; end: number }[] = [
    { message: ModelProtoSchema, at: 0, end: bytes.length },
  ];
  while (stack.length > 0 && stack.length <= ONNX_LIMITS.messageDepthMax) {
    const top = stack[stack.length - 1]!;
    if (top.at >= top.end) {
      stack.pop();
      continue;
    }
    const field = readField(bytes, top.at, top.end);
    top.at = field.end;
    const known = fieldsOf(top.message).get(field.number);
    if (field.wireType !== WIRE_BYTES || !known?.message || known.fieldKind === "map") continue;
    if (known.message.typeName !== TensorProtoSchema.typeName) {
      stack.push({ message: known.message, at: field.valueStart, end: field.end });
    } else {
      const tensor = readTensor(bytes, field.valueStart, field.end);
      if (tensor) found.push(tensor);
    }
  }
  return found;
}

function readTensor(bytes: Uint8Array, start: number, end: number): StoredTensor | undefined {
  let name = "";
  let dataType = 0;
  const dims: number[] = [];
  const places: { readonly start: number; readonly end: number; readonly element: number | undefined }[] = [];
  for (let at = start; at < end; ) {
    const field = readField(bytes, at, end);
    at = field.end;
    const isBytes = field.wireType === WIRE_BYTES;
    const place = { start: field.valueStart, end: field.end };
    if (field.number === FIELD.dims && field.wireType === WIRE_VARINT) {
      dims.push(readVarint(bytes, field.valueStart, end).value);
    } else if (field.number === FIELD.dims && isBytes) {
      for (let next = place.start; next < place.end; ) {
        const dim = readVarint(bytes, next, place.end);
        dims.push(dim.value);
        next = dim.next;
      }
    } else if (field.number === FIELD.dataType && field.wireType === WIRE_VARINT) {
      dataType = readVarint(bytes, field.valueStart, end).value;
    } else if (field.number === FIELD.name && isBytes) {
      name = new TextDecoder().decode(bytes.subarray(place.start, Math.min(place.end, place.start + 1024)));
    } else if (field.number === FIELD.rawData && isBytes) {
      places.push({ ...place, element: undefined });
    } else if (field.number === FIELD.floatData && isBytes) {
      places.push({ ...place, element: kindOfDataType(TensorProto_DataType.FLOAT) });
    }
  }
  const [place, ...others] = places;
  const element = place?.element ?? kindOfDataType(dataType);
  if (!place || others.length > 0 || element === undefined) return undefined;
  const length = place.end - place.start;
  if (length < DELTA_LIMITS.tensorBytesMin || length % ELEMENT_KINDS[element]!.bytes !== 0) return undefined;
  return { name, element, dims, start: place.start, end: place.end };
}
