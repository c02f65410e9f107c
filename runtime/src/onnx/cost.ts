import type { GraphProto, ModelProto, NodeProto } from "./generated/onnx_pb.js";
import { attribute, initializerMap, intAttribute, stringAttribute } from "./graph.js";
import { graphOf } from "./model.js";
import { elementCount, tensorDims } from "./tensor.js";

/** Shapes of tensors by name, from a run (`profileTensors` of `./node`). */
export type KnownShapes = ReadonlyMap<string, { readonly dims: readonly number[] }>;

export interface OperatorCost {
  /** `Conv`, or `domain:Op` outside the default domain. */
  readonly operator: string;
  readonly nodes: number;
  /** Multiply-accumulates of one run; one of them is two floating-point operations. */
  readonly macs: number;
  /** Elements of stored tensors that these nodes read. */
  readonly parameters: number;
  /** Elements that they write. */
  readonly outputElements: number;
}

export interface ModelCost {
  readonly macs: number;
  /** 2 · macs for weighted layers, one for each element that any other node writes. */
  readonly flops: number;
  /** Most bytes of activations alive at once when nodes run in file order and each is freed after its last reader; 4 bytes an element. */
  readonly activationBytesPeak: number;
  /** Bytes of the largest activation. */
  readonly activationBytesMax: number;
  /** By operator, most multiply-accumulates first. */
  readonly operators: readonly OperatorCost[];
  /** Nodes of the main graph whose shapes are not known, or that hold graphs: counted as nothing. */
  readonly uncounted: number;
}

const ELEMENT_BYTES = 4;
/** Nodes that only say the same in another shape or type. */
const FREE = new Set(
  `Constant Shape Reshape Flatten Squeeze Unsqueeze Identity Transpose Concat Slice Split Gather Dropout Cast
  DequantizeLinear QuantizeLinear Expand Tile Pad`.split(/\s+/),
);

/** What one run of a model costs with these shapes. Weighted layers are counted by their definitions in onnx/docs/Operators.md. */
export function modelCost(model: ModelProto, shapes: KnownShapes): ModelCost {
  const graph = graphOf(model);
  const dims = shapeReader(graph, shapes);
  const stored = initializerMap(graph);
  const rows = new Map<string, { nodes: number; macs: number; parameters: number; outputElements: number }>();
  let macs = 0;
  let flops = 0;
  let uncounted = 0;
  for (const node of graph.node) {
    const isDefault = node.domain === "" || node.domain === "ai.onnx";
    const operator = isDefault ? node.opType : `${node.domain}:${node.opType}`;
    const row = rows.get(operator) ?? { nodes: 0, macs: 0, parameters: 0, outputElements: 0 };
    rows.set(operator, row);
    row.nodes++;
    for (const name of new Set(node.input)) {
      const tensor = stored.get(name);
      if (tensor) row.parameters += elementCount(tensorDims(tensor));
    }
    const output = dims(node.output[0] ?? "");
    const written = node.output.reduce((sum, name) => sum + elementCount(dims(name) ?? [0]), 0);
    row.outputElements += written;
    const own = output === undefined ? undefined : macsOf(node, output, dims);
    if (own === undefined) uncounted++;
    else {
      row.macs += own;
      macs += own;
      flops += own > 0 ? 2 * own : FREE.has(node.opType) ? 0 : written;
    }
  }
  return {
    macs,
    flops,
    ...activationBytes(graph, dims),
    operators: [...rows]
      .map(([operator, row]) => ({ operator, ...row }))
      .sort((a, b) => b.macs - a.macs || b.outputElements - a.outputElements),
    uncounted,
  };
}

type Dims = (name: string) => readonly number[] | undefined;

function shapeReader(graph: GraphProto, shapes: KnownShapes): Dims {
  const stored = initializerMap(graph);
  return (name) => {
    const tensor = stored.get(name);
    return tensor ? tensorDims(tensor) : shapes.get(name)?.dims;
  };
}

/** Multiply-accumulates of one node; 0 for what has no weights, `undefined` where a shape is missing. */
function macsOf(node: NodeProto, output: readonly number[], dims: Dims): number | undefined {
  if (node.attribute.some((entry) => entry.g !== undefined)) return undefined;
  const input = dims(node.input[0] ?? "");
  const weight = dims(node.input[1] ?? "");
  switch (node.opType) {
    case "Conv":
    case "FusedConv":
    case "ConvInteger":
      return weight && elementCount(output) * elementCount(weight.slice(1));
    case "QLinearConv": {
      const kernel = dims(node.input[3] ?? "");
      return kernel && elementCount(output) * elementCount(kernel.slice(1));
    }
    case "ConvTranspose":
      return input && weight && elementCount(input) * elementCount(weight.slice(1));
    case "MatMul":
    case "MatMulInteger":
    case "FusedMatMul":
    case "DynamicQuantizeMatMul":
    case "QLinearMatMul":
      return input && elementCount(output) * (input.at(-1) ?? 1);
    case "Gemm":
    case "FusedGemm":
    case "QGemm":
      return input && elementCount(output) * (input[intAttribute(node, "transA", 0) === 0 ? 1 : 0] ?? 1);
    case "MatMulNBits":
      return elementCount(output) * intAttribute(node, "K", 1);
    case "LSTM":
    case "GRU":
    case "RNN":
      return recurrentMacs(input, weight, dims(node.input[2] ?? ""), node);
    case "Einsum":
    case "Attention":
    case "MultiHeadAttention":
      return undefined;
    default:
      return 0;
  }
}

/** Input [steps, batch, size] (batch first with layout 1), W [directions, gates·hidden, size], R [directions, gates·hidden, hidden]. */
function recurrentMacs(
  input: readonly number[] | undefined,
  weight: readonly number[] | undefined,
  recurrence: readonly number[] | undefined,
  node: NodeProto,
): number | undefined {
  if (!input || !weight || !recurrence || input.length !== 3) return undefined;
  const directions = stringAttribute(node, "direction", "forward") === "bidirectional" ? 2 : 1;
  const perDirection =
    (elementCount(weight) + elementCount(recurrence)) / Math.max(weight[0] ?? 1, directions);
  return input[0]! * input[1]! * directions * perDirection;
}

function activationBytes(
  graph: GraphProto,
  dims: Dims,
): Pick<ModelCost, "activationBytesPeak" | "activationBytesMax"> {
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  const constants = new Set(
    graph.node.filter((node) => attribute(node, "value")).flatMap((node) => node.output),
  );
  const lastUse = new Map<string, number>();
  graph.node.forEach((node, at) => node.input.forEach((name) => lastUse.set(name, at)));
  for (const output of graph.output) lastUse.set(output.name, graph.node.length);
  const sizeOf = (name: string) =>
    stored.has(name) || constants.has(name) ? 0 : elementCount(dims(name) ?? [0]) * ELEMENT_BYTES;
  const alive = new Map<string, number>();
  let now = 0;
  let activationBytesPeak = 0;
  let activationBytesMax = 0;
  const enter = (name: string) => {
    if (name === "" || alive.has(name)) return;
    alive.set(name, sizeOf(name));
    now += sizeOf(name);
    activationBytesMax = Math.max(activationBytesMax, sizeOf(name));
    activationBytesPeak = Math.max(activationBytesPeak, now);
  };
  for (const input of graph.input) enter(input.name);
  graph.node.forEach((node, at) => {
    node.output.forEach(enter);
    for (const name of [...node.input, ...node.output]) {
      if ((lastUse.get(name) ?? at) > at || !alive.has(name)) continue;
      now -= alive.get(name)!;
      alive.delete(name);
    }
  });
  return { activationBytesPeak, activationBytesMax };
}
