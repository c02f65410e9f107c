import { isFieldSet } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import { TensorProto_DataType, TensorProtoSchema, type TensorProto } from "./generated/onnx_pb.js";
import { isExternal } from "./tensor.js";

/** Bits per element of raw data (onnx.proto, TensorProto.DataType); strings have no raw form. */
const ELEMENT_BITS: ReadonlyMap<number, number> = new Map([
  [TensorProto_DataType.FLOAT, 32],
  [TensorProto_DataType.UINT8, 8],
  [TensorProto_DataType.INT8, 8],
  [TensorProto_DataType.UINT16, 16],
  [TensorProto_DataType.INT16, 16],
  [TensorProto_DataType.INT32, 32],
  [TensorProto_DataType.INT64, 64],
  [TensorProto_DataType.BOOL, 8],
  [TensorProto_DataType.FLOAT16, 16],
  [TensorProto_DataType.DOUBLE, 64],
  [TensorProto_DataType.UINT32, 32],
  [TensorProto_DataType.UINT64, 64],
  [TensorProto_DataType.COMPLEX64, 64],
  [TensorProto_DataType.COMPLEX128, 128],
  [TensorProto_DataType.BFLOAT16, 16],
  [TensorProto_DataType.FLOAT8E4M3FN, 8],
  [TensorProto_DataType.FLOAT8E4M3FNUZ, 8],
  [TensorProto_DataType.FLOAT8E5M2, 8],
  [TensorProto_DataType.FLOAT8E5M2FNUZ, 8],
  [TensorProto_DataType.UINT4, 4],
  [TensorProto_DataType.INT4, 4],
]);

/**
 * Refuses a stored tensor whose data lie elsewhere, whose dimensions claim more than `elementsMax`, or whose
 * dimensions and data disagree. `label` names it in errors.
 */
export function checkTensor(tensor: TensorProto, label: string, elementsMax: number): void {
  if (isExternal(tensor)) {
    throw new FieldloopError(
      "onnx_external_data",
      `Check ONNX: ${label} has its data in another file; bring it in with "fieldloop model edit FILE --inline-data"`,
    );
  }
  if (tensor.segment) throw malformed(`${label} is one segment of a tensor`);
  let count = 1n;
  for (const dim of tensor.dims) {
    if (dim < 0n) throw malformed(`${label} has dimension ${dim}`);
    count *= dim;
    // Compared at each step, so that the product stays short; a later 0 would not make the claim honest.
    if (count > BigInt(elementsMax)) {
      throw new FieldloopError(
        "onnx_too_large",
        `Check ONNX: ${label} claims dimensions [${tensor.dims.slice(0, 8).join(",")}], at most ${elementsMax} elements allowed`,
      );
    }
  }
  const bits = ELEMENT_BITS.get(tensor.dataType);
  if (tensor.dataType === TensorProto_DataType.STRING) {
    expectCount(label, tensor.stringData.length, Number(count));
  } else if (bits === undefined) {
    const name = TensorProto_DataType[tensor.dataType] ?? String(tensor.dataType);
    throw new FieldloopError("onnx_unsupported", `Check ONNX: ${label} has element type ${name}`);
  } else if (isFieldSet(tensor, TensorProtoSchema.field.rawData)) {
    const wanted = Math.ceil((Number(count) * bits) / 8);
    if (tensor.rawData.length !== wanted) {
      throw malformed(
        `${label} has ${tensor.rawData.length} bytes for dimensions [${tensor.dims.join(",")}], ${wanted} wanted`,
      );
    }
    if (typedCount(tensor) > 0) throw malformed(`${label} has both raw and typed data`);
  } else {
    expectCount(label, typedCount(tensor), typedWanted(tensor.dataType, Number(count), bits));
  }
}

/** Values that typed fields must hold: complex numbers take two, 4-bit types share one int32 per pair. */
function typedWanted(dataType: number, count: number, bits: number): number {
  if (dataType === TensorProto_DataType.COMPLEX64 || dataType === TensorProto_DataType.COMPLEX128) {
    return 2 * count;
  }
  return bits < 8 ? Math.ceil((count * bits) / 8) : count;
}

function typedCount(tensor: TensorProto): number {
  return (
    tensor.floatData.length +
    tensor.int32Data.length +
    tensor.int64Data.length +
    tensor.doubleData.length +
    tensor.uint64Data.length
  );
}

function expectCount(label: string, found: number, wanted: number): void {
  if (found !== wanted) throw malformed(`${label} has ${found} values, its dimensions want ${wanted}`);
}

function malformed(what: string): FieldloopError {
  return new FieldloopError("onnx_malformed", `Check ONNX: ${what}`);
}
