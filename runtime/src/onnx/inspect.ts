import { FieldloopError } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import type { GraphProto, TensorProto, ValueInfoProto } from "./generated/onnx_pb.js";
import { TensorProto_DataType } from "./generated/onnx_pb.js";
import { subgraphsOf, constantTensor } from "./graph.js";
import { decodeModel, graphOf } from "./model.js";
import { elementCount, elementTypeOf, tensorDims } from "./tensor.js";

/** What a person or a compatibility check wants to know about a model file. */
export interface ModelInspection {
  readonly bytes: number;
  readonly producer: string;
  readonly irVersion: number;
  readonly opsets: Readonly<Record<string, number>>;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** See `ModelFacts`. */
  readonly unfedInputs: readonly ForeignTensor[];
  readonly omittedOutputs: readonly ForeignTensor[];
  readonly nodeCount: number;
  /** How often each operator occurs, most frequent first; other domains than the default are written `domain:Op`. */
  readonly operators: Readonly<Record<string, number>>;
  /** Elements of all stored tensors. */
  readonly parameterCount: number;
  /** Stored tensors by ONNX element type name in lower case. */
  readonly weights: Readonly<Record<string, { readonly tensors: number; readonly elements: number }>>;
}

/** Reads a model file without running it. Throws what `decodeModel` throws. */
export function inspectModel(bytes: Uint8Array): ModelInspection {
  const model = decodeModel(bytes);
  const operators = new Map<string, number>();
  const weights: Record<string, { tensors: number; elements: number }> = {};
  let nodeCount = 0;
  let parameterCount = 0;
  const countTensor = (tensor: TensorProto) => {
    const type = (TensorProto_DataType[tensor.dataType] ?? String(tensor.dataType)).toLowerCase();
    const elements = elementCount(tensorDims(tensor));
    const entry = (weights[type] ??= { tensors: 0, elements: 0 });
    entry.tensors++;
    entry.elements += elements;
    parameterCount += elements;
  };
  const visit = (graph: GraphProto) => {
    graph.initializer.forEach(countTensor);
    for (const node of graph.node) {
      nodeCount++;
      const isDefault = node.domain === "" || node.domain === "ai.onnx";
      const key = isDefault ? node.opType : `${node.domain}:${node.opType}`;
      operators.set(key, (operators.get(key) ?? 0) + 1);
      const constant = constantTensor(node);
      if (constant) countTensor(constant);
      subgraphsOf(node).forEach(visit);
    }
  };
  const graph = graphOf(model);
  visit(graph);
  return {
    bytes: bytes.length,
    producer: [model.producerName, model.producerVersion].filter(Boolean).join(" "),
    irVersion: Number(model.irVersion),
    opsets: Object.fromEntries(model.opsetImport.map((entry) => [entry.domain, Number(entry.version)])),
    ...graphSignature(graph),
    nodeCount,
    operators: Object.fromEntries([...operators].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))),
    parameterCount,
    weights,
  };
}

/** An input or output that is no tensor of an element type that this runtime passes. */
export interface ForeignTensor {
  readonly name: string;
  /** `sequence`, `map`, `optional`, `sparse tensor`, `opaque value` or an element type such as `int4`. */
  readonly kind: string;
}

/**
 * Inputs and outputs as a session would state them. Initializers that are also listed as inputs are left out; what is no
 * plain tensor stands in the two other lists.
 * @throws FieldloopError `onnx_unsupported` for an element type that the engine's binding refuses
 */
export function graphSignature(graph: GraphProto): {
  inputs: TensorInfo[];
  outputs: TensorInfo[];
  unfedInputs: ForeignTensor[];
  omittedOutputs: ForeignTensor[];
} {
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  const fed = graph.input.filter((input) => !stored.has(input.name));
  return {
    inputs: fed.filter((info) => foreignKind(info) === undefined).map(toTensorInfo),
    outputs: graph.output.filter((info) => foreignKind(info) === undefined).map(toTensorInfo),
    unfedInputs: foreignOf(fed),
    omittedOutputs: foreignOf(graph.output),
  };
}

/** 4-bit tensors open in a session but cross the binding in neither direction. */
const UNPASSED: ReadonlySet<number> = new Set([TensorProto_DataType.INT4, TensorProto_DataType.UINT4]);

function foreignKind(info: ValueInfoProto): string | undefined {
  const value = info.type?.value;
  switch (value?.case) {
    case "sequenceType":
      return "sequence";
    case "mapType":
      return "map";
    case "optionalType":
      return "optional";
    case "sparseTensorType":
      return "sparse tensor";
    case "tensorType":
      return UNPASSED.has(value.value.elemType)
        ? TensorProto_DataType[value.value.elemType]?.toLowerCase()
        : undefined;
    case "opaqueType":
      return "opaque value";
    case undefined:
      return undefined;
  }
}

function foreignOf(infos: readonly ValueInfoProto[]): ForeignTensor[] {
  return infos.flatMap((info) => {
    const kind = foreignKind(info);
    return kind === undefined ? [] : [{ name: info.name, kind }];
  });
}

function toTensorInfo(info: ValueInfoProto): TensorInfo {
  const value = info.type?.value;
  // An output that states no type: the engine infers it.
  if (value?.case !== "tensorType") return { name: info.name, type: "float32", dims: [] };
  const dims = (value.value.shape?.dim ?? []).map((dim) => {
    if (dim.value.case === "dimValue") return Number(dim.value.value);
    return dim.value.case === "dimParam" && dim.value.value !== "" ? dim.value.value : -1;
  });
  return { name: info.name, type: namedElementType(info.name, value.value.elemType), dims };
}

function namedElementType(name: string, dataType: number): TensorInfo["type"] {
  try {
    return elementTypeOf(dataType);
  } catch (cause) {
    const type = TensorProto_DataType[dataType] ?? String(dataType);
    throw new FieldloopError(
      "onnx_unsupported",
      `Check ONNX: "${name}" has element type ${type}, which no tensor of this runtime has; put a Cast beside it`,
      { cause },
    );
  }
}
