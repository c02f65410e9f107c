import { FieldloopError } from "@fieldloop/protocol";
import {
  AttributeProto_AttributeType,
  TensorProto_DataType,
  type GraphProto,
  type NodeProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import { makeNode, namesRead, pruneDead, sortedNodes, subgraphsOf, constantTensor } from "../onnx/graph.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { tensorDims, tensorToFloat32 } from "../onnx/tensor.js";
import {
  float16Tensor,
  isKept,
  labelOf,
  NameSource,
  requireNames,
  type ConvertOptions,
  type ConvertResult,
  type LeftNode,
} from "./convert.js";
import { inferTypes } from "./groups.js";
import { toHalf } from "./half.js";
import { prepareFloat } from "./prepare.js";

export interface Float16Options extends ConvertOptions {
  /**
   * `compute`: weights and arithmetic in float16, for GPUs and Arm CPUs that have it. `storage`: weights are float16 in the file
   * and float32 from loading on, which halves the file anywhere and costs no speed.
   */
  readonly mode: "compute" | "storage";
  /** Operators that stay float32; {@link FLOAT16_BLOCKED} by default. */
  readonly blockedOperators?: readonly string[];
}

/**
 * Operators that stay float32: sums, powers and norms pass 65504 on ordinary inputs or lose what they subtract; the others
 * take or make positions, counts and types that float16 cannot hold, read the bits of a float32, or know no other type (Celu).
 */
export const FLOAT16_BLOCKED: readonly string[] = (
  "BitCast Cast Celu Constant ConstantOfShape CumSum Det EyeLike Exp GroupNormalization InstanceNormalization LRN " +
  "LayerNormalization LogSoftmax LpNormalization LpPool MeanVarianceNormalization Multinomial NonMaxSuppression Pow " +
  "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp " +
  "ReduceMean ReduceProd ReduceSum ReduceSumSquare Resize RoiAlign STFT Softplus TopK Upsample ImageScaler Affine Crop " +
  "QuantizeLinear DequantizeLinear DynamicQuantizeLinear"
).split(" ");

/** Weights smaller than this are not worth a Cast of their own. */
const STORED_ELEMENTS_MIN = 32;

/**
 * Converts a float32 model to float16; inputs and outputs stay float32 with their names. Throws what `checkModel` throws and
 * `onnx_unsupported` where there is nothing to convert.
 */
export async function convertToFloat16(
  modelBytes: Uint8Array,
  options: Float16Options,
): Promise<ConvertResult> {
  // float16 is older than any operator set that we read, so the model keeps its own.
  // Folding may write a weight several times, which storing is to avoid.
  const fold = options.mode === "compute" ? {} : { foldConstants: false };
  const prepared = await prepareFloat(modelBytes, { ...options, upgrade: false, ...fold });
  const model = decodeModel(prepared);
  const graph = graphOf(model);
  requireNames(graph, options.keepFloat);
  const names = new NameSource(graph);
  const warnings: string[] = [];
  if (options.mode === "storage") {
    const converted = storeHalf(graph, names, warnings);
    if (converted.length === 0) throw nothing("no stored float32 weights");
    return { bytes: encodeModel(model), converted, left: [], warnings };
  }
  const types = await inferTypes(options.backend, prepared);
  const writer = new HalfWriter(
    graph,
    names,
    warnings,
    (name) => types.get(name)?.type === "float32",
    options,
  );
  writer.rewrite();
  if (writer.converted.length === 0) throw nothing("no node that can compute in float16");
  return { bytes: encodeModel(model), converted: writer.converted, left: writer.left, warnings };
}

/** Replaces float32 initializers of a graph and of the graphs inside it; returns their names. */
function storeHalf(graph: GraphProto, names: NameSource, warnings: string[]): string[] {
  const converted: string[] = [];
  const casts: NodeProto[] = [];
  graph.initializer = graph.initializer.map((tensor) => {
    if (!isFloat(tensor) || elements(tensor) < STORED_ELEMENTS_MIN) return tensor;
    const half = toHalfTensor(tensor, names.unique(`${tensor.name}/half`), warnings);
    casts.push(castNode(half.name, tensor.name, TensorProto_DataType.FLOAT));
    converted.push(tensor.name);
    return half;
  });
  const nodes = graph.node.filter((node) => {
    for (const inner of subgraphsOf(node)) converted.push(...storeHalf(inner, names, warnings));
    const value = constantTensor(node);
    if (!value || !isFloat(value) || elements(value) < STORED_ELEMENTS_MIN) return true;
    const name = node.output[0]!;
    const half = toHalfTensor(value, names.unique(`${name}/half`), warnings);
    graph.initializer.push(half);
    casts.push(castNode(half.name, name, TensorProto_DataType.FLOAT));
    converted.push(name);
    return false;
  });
  graph.node = [...casts, ...nodes];
  return converted;
}

/**
 * Every float32 tensor may come to have a twin `NAME/half`; the original name always holds float32, so that graph outputs, float32
 * nodes and graphs inside nodes find what they expect. A Cast is written only for a form that somebody reads.
 */
class HalfWriter {
  readonly converted: string[] = [];
  readonly left: LeftNode[] = [];
  readonly #graph: GraphProto;
  readonly #names: NameSource;
  readonly #warnings: string[];
  readonly #isFloatActivation: (name: string) => boolean;
  readonly #blocked: ReadonlySet<string>;
  readonly #keepFloat: ReadonlySet<string>;
  readonly #initializers: Map<string, TensorProto>;
  readonly #twins = new Map<string, string>();
  /** Tensors that a half node writes: the twin is the original, float32 is the copy. */
  readonly #bornHalf = new Set<string>();
  readonly #added: NodeProto[] = [];

  constructor(
    graph: GraphProto,
    names: NameSource,
    warnings: string[],
    isFloatActivation: (name: string) => boolean,
    options: Float16Options,
  ) {
    this.#graph = graph;
    this.#names = names;
    this.#warnings = warnings;
    this.#isFloatActivation = isFloatActivation;
    this.#blocked = new Set(options.blockedOperators ?? FLOAT16_BLOCKED);
    this.#keepFloat = new Set(options.keepFloat);
    this.#initializers = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]));
  }

  rewrite(): void {
    for (const node of sortedNodes(this.#graph)) {
      const reason = this.#reasonForFloat(node);
      if (reason === undefined) this.#toHalf(node);
      else if (reason !== "") this.left.push({ node: labelOf(node), operator: node.opType, reason });
    }
    const readAsFloat = new Set([
      ...this.#graph.output.map((output) => output.name),
      ...this.#graph.node.flatMap((node) => [...namesRead(node)]),
    ]);
    for (const name of this.#bornHalf) {
      if (!readAsFloat.has(name)) continue;
      this.#added.push(castNode(this.#twins.get(name)!, name, TensorProto_DataType.FLOAT));
    }
    this.#graph.node.push(...this.#added);
    this.#graph.node = sortedNodes(this.#graph);
    // Recorded types of intermediate tensors are no longer true.
    this.#graph.valueInfo = [];
    pruneDead(this.#graph);
  }

  /** undefined to convert, "" for nodes that have nothing to do with floats. */
  #reasonForFloat(node: NodeProto): string | undefined {
    const touched = [...node.input, ...node.output].some((name) => this.#isFloat(name));
    if (!touched) return "";
    if (isKept(node, this.#keepFloat)) return "asked for";
    if (subgraphsOf(node).length > 0) return "holds a graph";
    if (node.domain !== "" && node.domain !== "ai.onnx") return `domain ${node.domain}`;
    if (this.#blocked.has(node.opType)) return "on the list of operators that overflow or need float32";
    if (node.attribute.some(({ type }) => type === AttributeProto_AttributeType.TENSOR))
      return "holds a tensor";
    return undefined;
  }

  #toHalf(node: NodeProto): void {
    node.input = node.input.map((name) => (this.#isFloat(name) ? this.#twinOf(name) : name));
    node.output = node.output.map((name) => {
      if (!this.#isFloat(name)) return name;
      this.#bornHalf.add(name);
      const twin = this.#names.unique(`${name}/half`);
      this.#twins.set(name, twin);
      return twin;
    });
    this.converted.push(labelOf(node));
  }

  #twinOf(name: string): string {
    const known = this.#twins.get(name);
    if (known !== undefined) return known;
    const twin = this.#names.unique(`${name}/half`);
    this.#twins.set(name, twin);
    const stored = this.#initializers.get(name);
    if (stored) this.#graph.initializer.push(toHalfTensor(stored, twin, this.#warnings));
    else this.#added.push(castNode(name, twin, TensorProto_DataType.FLOAT16));
    return twin;
  }

  #isFloat(name: string): boolean {
    if (name === "") return false;
    const stored = this.#initializers.get(name);
    return stored ? isFloat(stored) : this.#isFloatActivation(name);
  }
}

function toHalfTensor(tensor: TensorProto, name: string, warnings: string[]): TensorProto {
  const { data, clipped } = toHalf(tensorToFloat32(tensor));
  if (clipped > 0) {
    warnings.push(`weight "${tensor.name}": ${clipped} values beyond 65504 were clipped to it`);
  }
  return float16Tensor(name, tensorDims(tensor), data);
}

function castNode(from: string, to: string, type: TensorProto_DataType): NodeProto {
  return makeNode("Cast", [from], [to], { to: { i: type } }, { name: `${to}/cast` });
}

function isFloat(tensor: TensorProto): boolean {
  return tensor.dataType === TensorProto_DataType.FLOAT;
}

function elements(tensor: TensorProto): number {
  return tensor.dims.reduce((product, dim) => product * Number(dim), 1);
}

function nothing(what: string): FieldloopError {
  return new FieldloopError("onnx_unsupported", `Convert to float16: ${what}`);
}
