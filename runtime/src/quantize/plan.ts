import {
  TensorProto_DataType,
  type GraphProto,
  type NodeProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import { consumerMap, initializerMap, intAttribute, sortedNodes, stringAttribute } from "../onnx/graph.js";

/**
 * What an operator is to the quantizer, after what ONNX Runtime's CPU kernels do with it:
 * - `compute`: multiplies by a stored weight; always worth 8 bits;
 * - `integer`: has an 8-bit kernel, worth it only between others that have (Softmax has one too, but it loses more than it
 *   gains);
 * - `pass`: moves values, so input and output share scale and zero point;
 * - `clamp`: Relu or Clip, absorbed by the quantization of its output.
 */
export type Role = "compute" | "integer" | "pass" | "clamp";

const ROLES: Readonly<Record<string, Role>> = {
  Add: "integer",
  AveragePool: "integer",
  Clip: "clamp",
  Concat: "integer",
  Conv: "compute",
  DepthToSpace: "pass",
  Flatten: "pass",
  Gather: "pass",
  Gemm: "compute",
  GlobalAveragePool: "integer",
  LeakyRelu: "integer",
  MatMul: "compute",
  MaxPool: "pass",
  Mul: "integer",
  Relu: "clamp",
  Reshape: "pass",
  Resize: "pass",
  Sigmoid: "integer",
  Slice: "pass",
  Split: "pass",
  Squeeze: "pass",
  Transpose: "pass",
  Unsqueeze: "pass",
};

/** Operators all of whose inputs are data; of the others only the first is. */
const ALL_INPUTS_DATA = new Set(["Add", "Concat", "Mul"]);

export interface QuantizationPlan {
  /** Nodes in execution order. */
  readonly order: readonly NodeProto[];
  /** Nodes that read quantized values; a clamp behind one of them belongs to it. */
  readonly nodes: ReadonlyMap<NodeProto, Role>;
  /** Activations that get QuantizeLinear and DequantizeLinear, in the order in which they come to be. */
  readonly tensors: ReadonlySet<string>;
  /** For an activation that a `pass` node moved: the one whose scale it shares. */
  readonly scaleOwner: ReadonlyMap<string, string>;
  /** Constant second operands (of Add, Mul, Concat) that get 8 bits. */
  readonly constants: ReadonlySet<string>;
}

/** The tensor whose calibrated range gives `name` its scale. */
export function scaleOwnerOf(plan: QuantizationPlan, name: string): string {
  let owner = name;
  for (let next = plan.scaleOwner.get(owner); next !== undefined; next = plan.scaleOwner.get(owner))
    owner = next;
  return owner;
}

/**
 * Results of Softmax nodes that the backend will turn into its 8-bit kernel because both sides are quantized. ONNX
 * Runtime 1.30's is only right when the levels span [0, 1] (with a calibrated span of 0.16 its cosine to the float
 * result was 0.1), as ONNX Runtime's own quantizer writes it.
 */
export function fusedSoftmaxOutputs(plan: QuantizationPlan): Set<string> {
  const fused = plan.order.filter((node) => node.opType === "Softmax" && plan.tensors.has(node.input[0]!));
  return new Set(fused.map((node) => node.output[0]!));
}

/** Inputs of a node that carry activations or constants, in contrast to shapes, axes and weights. */
export function dataInputs(node: NodeProto): string[] {
  return ALL_INPUTS_DATA.has(node.opType) ? node.input : node.input.slice(0, 1);
}

/**
 * Decides which nodes run on 8-bit integers and which activations are quantized for it. A float result is quantized
 * only where a `compute` node reads it, so heads (final Sigmoid, Softmax, box arithmetic) keep their precision and
 * unknown operators stay untouched. `keepFloat` names nodes, or tensors they write, to leave alone.
 */
export function planQuantization(graph: GraphProto, keepFloat: ReadonlySet<string>): QuantizationPlan {
  return new Planner(graph, keepFloat).plan();
}

class Planner {
  readonly #order: NodeProto[];
  readonly #initializers: Map<string, TensorProto>;
  readonly #consumers: Map<string, NodeProto[]>;
  readonly #graphInputs: string[];
  readonly #graphOutputs: Set<string>;
  readonly #roles = new Map<NodeProto, Role>();
  /** Activations that reach a compute node through operators with an integer form. */
  readonly #useful = new Set<string>();
  /** Activations that reach a compute node through `pass` operators alone. */
  readonly #direct = new Set<string>();
  readonly #nodes = new Map<NodeProto, Role>();
  readonly #tensors = new Set<string>();
  readonly #scaleOwner = new Map<string, string>();
  readonly #constants = new Set<string>();

  constructor(graph: GraphProto, keepFloat: ReadonlySet<string>) {
    this.#order = sortedNodes(graph);
    this.#initializers = initializerMap(graph);
    this.#consumers = consumerMap(graph);
    this.#graphInputs = graph.input.map((input) => input.name);
    this.#graphOutputs = new Set(graph.output.map((output) => output.name));
    for (const node of this.#order) {
      const role = this.#roleOf(node);
      const kept = keepFloat.has(node.name) || node.output.some((name) => keepFloat.has(name));
      if (role && !kept) this.#roles.set(node, role);
    }
  }

  plan(): QuantizationPlan {
    for (const node of [...this.#order].reverse()) this.#markReach(node);
    for (const name of this.#graphInputs) if (this.#direct.has(name)) this.#tensors.add(name);
    for (const node of this.#order) this.#place(node);
    return {
      order: this.#order,
      nodes: this.#nodes,
      tensors: this.#tensors,
      scaleOwner: this.#scaleOwner,
      constants: this.#constants,
    };
  }

  #markReach(node: NodeProto): void {
    const role = this.#roles.get(node);
    if (!role) return;
    const useful = role === "compute" || node.output.some((name) => this.#useful.has(name));
    const direct =
      role === "compute" || (role === "pass" && node.output.some((name) => this.#direct.has(name)));
    for (const name of dataInputs(node)) {
      if (useful) this.#useful.add(name);
      if (direct) this.#direct.add(name);
    }
  }

  #place(node: NodeProto): void {
    if (this.#nodes.has(node)) return; // a clamp that its producer took along
    const role = this.#roles.get(node);
    const output = node.output[0]!;
    switch (role) {
      case "compute":
        this.#nodes.set(node, role);
        this.#placeResult(node, node.opType === "Conv");
        return;
      case "integer":
        if (this.#anyInputQuantized(node) && this.#usefulResult(node)) {
          this.#nodes.set(node, role);
          for (const name of node.input.filter((entry) => dataInputs(node).includes(entry))) {
            if (this.#initializers.has(name)) this.#constants.add(name);
            else this.#tensors.add(name);
          }
          this.#placeResult(node, true);
          return;
        }
        break;
      case "pass":
        if (this.#anyInputQuantized(node) && node.output.some((name) => this.#useful.has(name))) {
          this.#nodes.set(node, role);
          for (const name of node.output) {
            this.#tensors.add(name);
            this.#scaleOwner.set(name, node.input[0]!);
          }
          return;
        }
        break;
      case "clamp":
        if (this.#anyInputQuantized(node) && this.#useful.has(output)) {
          this.#nodes.set(node, role);
          this.#tensors.add(output);
          return;
        }
        break;
      case undefined:
        break;
    }
    // A float result that a compute node reads.
    for (const name of node.output) if (this.#direct.has(name)) this.#tensors.add(name);
  }

  /** Quantizes what a node writes, behind its clamp when it has one to itself. */
  #placeResult(node: NodeProto, always: boolean): void {
    const clamp = this.#ownClamp(node);
    const result = (clamp ?? node).output[0]!;
    if (!always && !this.#useful.has(result)) return;
    if (clamp) this.#nodes.set(clamp, "clamp");
    this.#tensors.add(result);
  }

  #ownClamp(node: NodeProto): NodeProto | undefined {
    const output = node.output[0]!;
    const readers = this.#consumers.get(output) ?? [];
    if (readers.length !== 1 || this.#graphOutputs.has(output)) return undefined;
    const reader = readers[0]!;
    return this.#roles.get(reader) === "clamp" && reader.input[0] === output ? reader : undefined;
  }

  #usefulResult(node: NodeProto): boolean {
    return this.#useful.has((this.#ownClamp(node) ?? node).output[0]!);
  }

  #anyInputQuantized(node: NodeProto): boolean {
    return dataInputs(node).some((name) => this.#tensors.has(name));
  }

  #roleOf(node: NodeProto): Role | undefined {
    if (node.domain !== "" && node.domain !== "ai.onnx") return undefined;
    const role = Object.hasOwn(ROLES, node.opType) ? ROLES[node.opType] : undefined;
    if (!role || node.output.length === 0 || node.output[0] === "") return undefined;
    if (role === "compute") return this.#isCompute(node) ? role : undefined;
    const stored = dataInputs(node).map((name) => this.#initializers.get(name));
    if (stored.every((tensor) => tensor !== undefined)) return undefined;
    if (stored.some((tensor) => tensor && !isUsableConstant(tensor))) return undefined;
    if (node.opType === "Resize" && stringAttribute(node, "mode", "nearest") === "cubic") return undefined;
    if (node.opType !== "Split" && node.output.length > 1) return undefined;
    if (
      node.opType === "Clip" &&
      !node.input.slice(1).every((name) => name === "" || this.#initializers.has(name))
    )
      return undefined;
    return role;
  }

  #isCompute(node: NodeProto): boolean {
    const weight = this.#initializers.get(node.input[1] ?? "");
    if (!weight || weight.dataType !== TensorProto_DataType.FLOAT) return false;
    if (this.#initializers.has(node.input[0]!)) return false;
    if (node.opType === "Conv") {
      return weight.dims.length >= 3 && this.#isBias(node.input[2], Number(weight.dims[0]));
    }
    if (weight.dims.length !== 2) return false;
    if (node.opType === "MatMul") return true;
    const columns = Number(weight.dims[intAttribute(node, "transB", 0) ? 0 : 1]);
    return intAttribute(node, "transA", 0) === 0 && this.#isBias(node.input[2], columns);
  }

  #isBias(name: string | undefined, channelCount: number): boolean {
    if (name === undefined || name === "") return true;
    const bias = this.#initializers.get(name);
    if (!bias || bias.dataType !== TensorProto_DataType.FLOAT) return false;
    // One value per output channel, along the last axis: [n] or [1, n].
    const elements = bias.dims.reduce((product, dim) => product * Number(dim), 1);
    return elements === channelCount && Number(bias.dims[bias.dims.length - 1] ?? 1n) === channelCount;
  }
}

function isUsableConstant(tensor: TensorProto): boolean {
  return tensor.dataType === TensorProto_DataType.FLOAT && tensor.dims.every((dim) => dim > 0n);
}
