import { create, fromBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType, Tensor } from "../backend.js";
import { scanWire } from "../onnx/wire.js";
import { elementCountOf, newElements } from "../package/tensor-bytes.js";
import {
  ModelInferRequestSchema,
  ModelInferResponseSchema,
  type InferParameter,
  type InferTensorContents,
  type ModelInferRequest,
  type ModelInferResponse,
} from "./generated/open_inference_pb.js";
import { OIP_LIMITS } from "./limits.js";
import { encodedFromContents, encodedFromRaw, encodedTypeOf } from "./encoded.js";
import type { OipEncodedInput, OipInferRequest, OipInferResponse } from "./service.js";
import {
  datatypeOf,
  decodeText,
  elementTypeOfDatatype,
  parseShape,
  tensorFromRaw,
  tensorToRaw,
} from "./tensors.js";

/** Between the protocol's gRPC messages and tensors, both ways. Tensors are sent raw, and read raw or as typed contents. */

/**
 * Decodes a message whose sender is not trusted: a number takes one byte there and tens in memory, so they are counted first.
 * @throws FieldloopError `tensor_invalid` for bytes that are no such message, or hold too much outside raw contents
 */
export function decodeMessage<Schema extends DescMessage>(
  schema: Schema,
  bytes: Uint8Array,
): MessageShape<Schema> {
  try {
    scanWire(bytes, schema, {
      wireFieldsMax: OIP_LIMITS.wireFieldsMax,
      typedElementsMax: OIP_LIMITS.jsonElementsMax,
    });
    return fromBinary(schema, bytes, { readUnknownFields: false });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.replace("Read ONNX: ", "") : String(cause);
    throw new FieldloopError("tensor_invalid", `Read ${schema.name}: ${reason}`, { cause });
  }
}

export function toGrpcRequest(request: OipInferRequest): ModelInferRequest {
  const inputs = [...request.inputs];
  return create(ModelInferRequestSchema, {
    modelName: request.model,
    modelVersion: request.version ?? "",
    id: request.id ?? "",
    inputs: inputs.map(([name, tensor]) => headOf(name, tensor)),
    outputs: (request.outputs ?? []).map((name) => ({ name })),
    rawInputContents: inputs.map(([, tensor]) => tensorToRaw(tensor)),
  });
}

/** @throws FieldloopError `tensor_invalid`, `limit_exceeded` */
export function fromGrpcRequest(message: ModelInferRequest): OipInferRequest {
  const encoded = new Map<string, OipEncodedInput>();
  const inputs = readTensors(message.inputs, message.rawInputContents, encoded);
  return {
    model: message.modelName,
    version: message.modelVersion === "" ? undefined : message.modelVersion,
    id: message.id === "" ? undefined : message.id,
    parameters: parametersOf(message.parameters),
    inputs,
    ...(encoded.size === 0 ? {} : { encoded }),
    outputs: message.outputs.length === 0 ? undefined : message.outputs.map(({ name }) => name),
  };
}

export function toGrpcResponse(response: OipInferResponse, id: string): ModelInferResponse {
  const outputs = [...response.outputs];
  return create(ModelInferResponseSchema, {
    modelName: response.model,
    modelVersion: response.version,
    id,
    outputs: outputs.map(([name, tensor]) => headOf(name, tensor)),
    rawOutputContents: outputs.map(([, tensor]) => tensorToRaw(tensor)),
  });
}

/** @throws FieldloopError `tensor_invalid`, `limit_exceeded` */
export function fromGrpcResponse(message: ModelInferResponse): OipInferResponse {
  return {
    model: message.modelName,
    version: message.modelVersion,
    outputs: readTensors(message.outputs, message.rawOutputContents),
  };
}

function headOf(name: string, tensor: Tensor): { name: string; datatype: string; shape: bigint[] } {
  return { name, datatype: datatypeOf(tensor.type), shape: tensor.dims.map(BigInt) };
}

interface TensorMessage {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly bigint[];
  readonly contents?: InferTensorContents;
  readonly parameters: Readonly<Record<string, InferParameter>>;
}

function readTensors(
  messages: readonly TensorMessage[],
  raw: readonly Uint8Array[],
  encoded?: Map<string, OipEncodedInput>,
): Map<string, Tensor> {
  if (messages.length > OIP_LIMITS.tensorsMax) {
    throw refuse(`${messages.length} tensors, at most ${OIP_LIMITS.tensorsMax}`);
  }
  if (raw.length !== 0 && raw.length !== messages.length) {
    throw refuse(`${raw.length} raw contents for ${messages.length} tensors`);
  }
  const read = new Map<string, Tensor>();
  messages.forEach(({ name, datatype, shape, contents, parameters }, at) => {
    if (read.has(name) || encoded?.has(name) === true) throw refuse(`"${name}" is given twice`);
    const type = elementTypeOfDatatype(datatype);
    const dims = parseShape(shape);
    const bytes = raw[at];
    if (bytes !== undefined && hasValues(contents))
      throw refuse(`"${name}" has typed contents beside raw ones`);
    const contentType = encoded && encodedTypeOf(type, parametersOf(parameters)["content_type"]);
    if (contentType !== undefined) {
      const file =
        bytes === undefined
          ? encodedFromContents(dims, contents?.bytesContents ?? [])
          : encodedFromRaw(dims, bytes);
      encoded?.set(name, { contentType, bytes: file });
      return;
    }
    read.set(
      name,
      bytes === undefined ? fromContents(type, dims, contents) : tensorFromRaw(type, dims, bytes),
    );
  });
  return read;
}

/** The specification allows one or the other: with both nobody can say which was meant. */
function hasValues(contents: InferTensorContents | undefined): boolean {
  return Object.values(contents ?? {}).some((values) => Array.isArray(values) && values.length > 0);
}

/** Elements from the field that belongs to a type; the protocol gives half floats none. */
function fromContents(type: ElementType, dims: number[], contents: InferTensorContents | undefined): Tensor {
  const values = contents === undefined ? [] : valuesOf(type, contents);
  const count = elementCountOf(dims);
  if (values.length !== count) throw refuse(`${values.length} elements, [${dims.join(", ")}] wants ${count}`);
  if (type === "string") return { type, dims, data: (values as Uint8Array[]).map(decodeText) };
  const data = newElements(type, count);
  values.forEach((value, index) => {
    data[index] = typeof value === "boolean" ? Number(value) : (value as number);
    if (type !== "float32" && type !== "float64" && type !== "bool" && data[index] !== value) {
      throw refuse(`${String(value)} does not fit ${type}`);
    }
  });
  return { type, dims, data };
}

function valuesOf(
  type: ElementType,
  contents: InferTensorContents,
): readonly (number | bigint | boolean | Uint8Array)[] {
  switch (type) {
    case "bool":
      return contents.boolContents;
    case "int8":
    case "int16":
    case "int32":
      return contents.intContents;
    case "int64":
      return contents.int64Contents;
    case "uint8":
    case "uint16":
    case "uint32":
      return contents.uintContents;
    case "uint64":
      return contents.uint64Contents;
    case "float32":
      return contents.fp32Contents;
    case "float64":
      return contents.fp64Contents;
    case "string":
      return contents.bytesContents;
    case "float16":
      throw refuse("FP16 has no typed contents, send it raw");
  }
}

function parametersOf(
  parameters: Readonly<Record<string, InferParameter>>,
): Record<string, string | number | boolean> {
  const scalars: Record<string, string | number | boolean> = {};
  for (const [name, { parameterChoice }] of Object.entries(parameters)) {
    const { value } = parameterChoice;
    if (value !== undefined) scalars[name] = typeof value === "bigint" ? Number(value) : value;
  }
  return scalars;
}

function refuse(what: string): FieldloopError {
  return new FieldloopError("tensor_invalid", `Read tensors: ${what}`);
}
