import { create } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import type { ElementType, Tensor, TensorData } from "../backend.js";
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  ModelProtoSchema,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
  type AttributeProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import { decodeModel, encodeModel, graphOf, opsetVersion } from "../onnx/model.js";
import type { Attribute, TrainGraph, TrainNode } from "./graph.js";

type NumericArrayConstructor = new (buffer: ArrayBuffer) => Exclude<TensorData, string[]>;

const FORMS: Partial<Record<DataType, { type: ElementType; array: NumericArrayConstructor; bytes: number }>> =
  {
    [DataType.FLOAT]: { type: "float32", array: Float32Array, bytes: 4 },
    [DataType.DOUBLE]: { type: "float64", array: Float64Array, bytes: 8 },
    [DataType.INT64]: { type: "int64", array: BigInt64Array, bytes: 8 },
    [DataType.INT32]: { type: "int32", array: Int32Array, bytes: 4 },
    [DataType.UINT8]: { type: "uint8", array: Uint8Array, bytes: 1 },
    [DataType.INT8]: { type: "int8", array: Int8Array, bytes: 1 },
    [DataType.BOOL]: { type: "bool", array: Uint8Array, bytes: 1 },
  };

const DATA_TYPES: Partial<Record<ElementType, DataType>> = {
  float32: DataType.FLOAT,
  float64: DataType.DOUBLE,
  int64: DataType.INT64,
  int32: DataType.INT32,
  uint8: DataType.UINT8,
  int8: DataType.INT8,
  bool: DataType.BOOL,
};

/** Reads an ONNX file into the flat form that the training engine works on. Throws `onnx_unsupported` on subgraphs and foreign domains. */
export function graphFromBytes(bytes: Uint8Array): TrainGraph {
  return graphFromModel(decodeModel(bytes));
}

/** As {@link graphFromBytes}, from a decoded file; its tensors are copied. */
export function graphFromModel(model: ModelProto): TrainGraph {
  const proto = graphOf(model);
  const constants = new Map<string, Tensor>();
  for (const tensor of proto.initializer) constants.set(tensor.name, tensorFromProto(tensor));
  const initializers = new Set(constants.keys());
  const inputs = proto.input.filter((input) => !constants.has(input.name)).map(inputFromProto);
  const nodes: TrainNode[] = [];
  proto.node.forEach((node, index) => {
    const read = nodeFromProto(node, index);
    const value = read.op === "Constant" ? constantValue(read) : undefined;
    if (value) constants.set(read.outputs[0]!, value);
    else nodes.push(read);
  });
  return {
    opset: opsetVersion(model),
    inputs,
    outputs: proto.output.map((output) => output.name),
    constants,
    initializers,
    nodes,
  };
}

function inputFromProto(
  input: NonNullable<ModelProto["graph"]>["input"][number],
): TrainGraph["inputs"][number] {
  const value = input.type?.value;
  const form = value?.case === "tensorType" ? FORMS[value.value.elemType as DataType] : undefined;
  if (value?.case !== "tensorType" || !form) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Read model: input "${input.name}" is not a tensor of numbers`,
    );
  }
  const dims = (value.value.shape?.dim ?? []).map((dim) =>
    dim.value.case === "dimValue" && dim.value.value > 0n ? Number(dim.value.value) : -1,
  );
  return { name: input.name, type: form.type, dims };
}

function nodeFromProto(node: NodeProto, index: number): TrainNode {
  const name = node.name || `${node.opType}_${index}`;
  if (node.domain !== "" && node.domain !== "ai.onnx") {
    throw new FieldloopError(
      "training_unsupported_op",
      `Prepare training: node "${name}" has operator "${node.domain}.${node.opType}"; only the default ONNX domain has gradients`,
    );
  }
  const attributes: Record<string, Attribute> = {};
  for (const attribute of node.attribute)
    attributes[attribute.name] = attributeFromProto(attribute, name, node.opType);
  return { op: node.opType, name, inputs: [...node.input], outputs: [...node.output], attributes };
}

function attributeFromProto(attribute: AttributeProto, node: string, op: string): Attribute {
  const clamp = (value: bigint) =>
    Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, Number(value)));
  const { type } = attribute;
  if (type === AttributeType.INT) return { i: clamp(attribute.i) };
  if (type === AttributeType.FLOAT) return { f: attribute.f };
  if (type === AttributeType.STRING) return { s: new TextDecoder().decode(attribute.s) };
  if (type === AttributeType.INTS) return { ints: attribute.ints.map(clamp) };
  if (type === AttributeType.FLOATS) return { floats: attribute.floats };
  if (type === AttributeType.TENSOR && attribute.t) return { t: tensorFromProto(attribute.t) };
  throw new FieldloopError(
    "training_unsupported_op",
    `Prepare training: node "${node}" (${op}) has attribute "${attribute.name}" of a kind without gradients (subgraph or list of tensors)`,
  );
}

function constantValue(node: TrainNode): Tensor | undefined {
  const { value, value_float, value_int, value_ints, value_floats } = node.attributes;
  if (value && "t" in value) return value.t;
  if (value_float && "f" in value_float) {
    return { type: "float32", dims: [], data: Float32Array.of(value_float.f) };
  }
  if (value_int && "i" in value_int)
    return { type: "int64", dims: [], data: BigInt64Array.of(BigInt(value_int.i)) };
  if (value_ints && "ints" in value_ints) {
    return {
      type: "int64",
      dims: [value_ints.ints.length],
      data: BigInt64Array.from(value_ints.ints, BigInt),
    };
  }
  if (value_floats && "floats" in value_floats) {
    return {
      type: "float32",
      dims: [value_floats.floats.length],
      data: Float32Array.from(value_floats.floats),
    };
  }
  return undefined;
}

/** Copies a tensor out of its proto: raw data may be unaligned, typed fields hold one value each. */
export function tensorFromProto(proto: TensorProto): Tensor {
  if (proto.dataLocation === DataLocation.EXTERNAL) {
    throw new FieldloopError(
      "onnx_external_data",
      `Read model: tensor "${proto.name}" lies in another file; training needs it inside the model`,
    );
  }
  const form = FORMS[proto.dataType as DataType];
  if (!form) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Read model: tensor "${proto.name}" has element type ${proto.dataType}; training reads float32, float64, int64, int32, int8, uint8 and bool`,
    );
  }
  const dims = proto.dims.map(Number);
  const count = dims.reduce((product, dim) => product * dim, 1);
  let data: Exclude<TensorData, string[]>;
  if (proto.rawData.length > 0 || count === 0) {
    // Not slice(): on a Node Buffer that is a view of its whole pool.
    data = new form.array(new Uint8Array(proto.rawData).buffer);
  } else {
    data = new form.array(new ArrayBuffer(count * form.bytes));
    const values = typedValues(proto);
    if (data instanceof BigInt64Array) data.set(values as bigint[]);
    else (data as Float32Array).set(values as number[]);
  }
  if (data.length !== count) {
    throw new FieldloopError(
      "onnx_malformed",
      `Read model: tensor "${proto.name}" holds ${data.length} elements, its dimensions say ${count}`,
    );
  }
  return { type: form.type, dims, data };
}

function typedValues(proto: TensorProto): number[] | bigint[] {
  const type: DataType = proto.dataType;
  if (type === DataType.FLOAT) return proto.floatData;
  if (type === DataType.DOUBLE) return proto.doubleData;
  return type === DataType.INT64 ? proto.int64Data : proto.int32Data;
}

/** A TensorProto with raw little-endian data. */
export function tensorToProto(name: string, tensor: Tensor): TensorProto {
  const data = tensor.data as Exclude<TensorData, string[]>;
  return create(TensorProtoSchema, {
    name,
    dims: tensor.dims.map(BigInt),
    dataType: dataTypeOf(tensor.type),
    rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(),
  });
}

function dataTypeOf(type: ElementType): DataType {
  const found = DATA_TYPES[type];
  if (found === undefined)
    throw new FieldloopError("onnx_unsupported", `Write model: no ONNX form for "${type}"`);
  return found;
}

function attributeToProto(name: string, attribute: Attribute): AttributeProto {
  const proto = create(AttributeProtoSchema, { name });
  if ("i" in attribute) Object.assign(proto, { type: AttributeType.INT, i: BigInt(attribute.i) });
  else if ("f" in attribute) Object.assign(proto, { type: AttributeType.FLOAT, f: attribute.f });
  else if ("s" in attribute)
    Object.assign(proto, { type: AttributeType.STRING, s: new TextEncoder().encode(attribute.s) });
  else if ("ints" in attribute)
    Object.assign(proto, { type: AttributeType.INTS, ints: attribute.ints.map(BigInt) });
  else if ("floats" in attribute)
    Object.assign(proto, { type: AttributeType.FLOATS, floats: [...attribute.floats] });
  else Object.assign(proto, { type: AttributeType.TENSOR, t: tensorToProto("", attribute.t) });
  return proto;
}

/** Writes the flat form as an ONNX file. Outputs carry names only: ONNX Runtime infers their types. */
export function graphToBytes(graph: TrainGraph): Uint8Array {
  const tensorType = (type: ElementType, dims: readonly number[]) => ({
    value: {
      case: "tensorType" as const,
      value: {
        elemType: dataTypeOf(type),
        shape: {
          dim: dims.map((dim) => ({
            value: dim < 0 ? { case: undefined } : { case: "dimValue" as const, value: BigInt(dim) },
          })),
        },
      },
    },
  });
  const model = create(ModelProtoSchema, {
    irVersion: 9n,
    producerName: "fieldloop",
    opsetImport: [{ domain: "", version: BigInt(graph.opset) }],
    graph: {
      name: "training",
      input: graph.inputs.map((input) => ({ name: input.name, type: tensorType(input.type, input.dims) })),
      output: graph.outputs.map((name) => ({ name })),
      initializer: [...graph.constants].map(([name, tensor]) => tensorToProto(name, tensor)),
      node: graph.nodes.map((node) => ({
        name: node.name,
        opType: node.op,
        input: node.inputs,
        output: node.outputs,
        attribute: Object.entries(node.attributes).map(([name, value]) => attributeToProto(name, value)),
      })),
    },
  });
  return encodeModel(model);
}
