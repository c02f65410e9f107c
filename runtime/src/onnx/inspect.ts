import type { TensorInfo } from "../backend.js";
import type { GraphProto, TensorProto, ValueInfoProto } from "./generated/onnx_pb.js";
import { TensorProto_DataType } from "./generated/onnx_pb.js";
import { attribute, subgraphsOf } from "./graph.js";
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
      const constant = node.opType === "Constant" ? attribute(node, "value")?.t : undefined;
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

/** Inputs and outputs as a session would state them; initializers that are also listed as inputs are left out. */
export function graphSignature(graph: GraphProto): {
  inputs: TensorInfo[];
  outputs: TensorInfo[];
} {
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  return {
    inputs: graph.input.filter((input) => !stored.has(input.name)).map(toTensorInfo),
    outputs: graph.output.map(toTensorInfo),
  };
}

function toTensorInfo(info: ValueInfoProto): TensorInfo {
  const value = info.type?.value;
  // Sequences, maps and optionals have no tensor form; ONNX Runtime's binding states them the same way.
  if (value?.case !== "tensorType") return { name: info.name, type: "string", dims: [] };
  const dims = (value.value.shape?.dim ?? []).map((dim) => {
    if (dim.value.case === "dimValue") return Number(dim.value.value);
    return dim.value.case === "dimParam" && dim.value.value !== "" ? dim.value.value : -1;
  });
  return { name: info.name, type: elementTypeOf(value.value.elemType), dims };
}
