import { FieldloopError } from "@fieldloop/protocol";
import {
  TensorProto_DataType,
  type GraphProto,
  type NodeProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import {
  floatAttribute,
  intAttribute,
  makeNode,
  pruneDead,
  stringAttribute,
  subgraphsOf,
} from "../onnx/graph.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor, int8Tensor, tensorDims, tensorToFloat32 } from "../onnx/tensor.js";
import {
  importDomain,
  isKept,
  labelOf,
  NameSource,
  requireNames,
  transposed,
  type ConvertOptions,
  type ConvertResult,
  type LeftNode,
} from "./convert.js";
import { prepareFloat } from "./prepare.js";
import { quantizeWeight } from "./weights.js";

export interface DynamicOptions extends ConvertOptions {
  readonly perChannel: boolean;
  /** 7-bit weights, for x86 without VNNI. */
  readonly reduceRange: boolean;
}

/**
 * Stores the weights of MatMul, Gemm and LSTM nodes as int8, wherever in the model they are, and has activations quantized while
 * running, by their range in each run (ONNX Runtime `quantization.md`, dynamic quantization). Needs no calibration; suits recurrent
 * and transformer models. MatMul and Gemm are written in standard operators, which ONNX Runtime fuses to MatMulIntegerToFloat or
 * DynamicQuantizeMatMul; LSTM as `com.microsoft.DynamicQuantizeLSTM`. GRU and RNN have no such kernel and stay float.
 * Throws what `checkModel` and `upgradeOpset` throw, and `onnx_unsupported` where there is nothing to quantize.
 */
export async function quantizeDynamic(
  modelBytes: Uint8Array,
  options: DynamicOptions,
): Promise<ConvertResult> {
  const model = decodeModel(await prepareFloat(modelBytes, options));
  const graph = graphOf(model);
  requireNames(graph, options.keepFloat);
  const writer = new DynamicWriter(new NameSource(graph), options);
  writer.rewrite(graph, new Map());
  if (writer.converted.length === 0) {
    const reasons = writer.left.map(({ node, reason }) => `"${node}" ${reason}`).join("; ");
    throw new FieldloopError(
      "onnx_unsupported",
      `Quantize: no MatMul, Gemm or LSTM with stored float32 weights${reasons === "" ? "" : ` (${reasons})`}`,
    );
  }
  if (writer.usesContrib) importDomain(model, "com.microsoft", 1);
  pruneDead(graph);
  return { bytes: encodeModel(model), converted: writer.converted, left: writer.left, warnings: [] };
}

type Stored = ReadonlyMap<string, TensorProto>;

class DynamicWriter {
  readonly converted: string[] = [];
  readonly left: LeftNode[] = [];
  usesContrib = false;
  readonly #names: NameSource;
  readonly #options: DynamicOptions;
  readonly #keepFloat: ReadonlySet<string>;

  constructor(names: NameSource, options: DynamicOptions) {
    this.#names = names;
    this.#options = options;
    this.#keepFloat = new Set(options.keepFloat);
  }

  /** `outer` holds the constants of the graphs around. */
  rewrite(graph: GraphProto, outer: Stored): void {
    const stored = new Map([...outer, ...graph.initializer.map((tensor) => [tensor.name, tensor] as const)]);
    const scope = new Scope(graph, stored, new Map());
    graph.node = graph.node.flatMap((node) => {
      for (const inner of subgraphsOf(node)) this.rewrite(inner, stored);
      return this.#rewriteNode(node, scope) ?? [node];
    });
    // Weights of inner graphs are dropped here, those of the whole model by `pruneDead`.
    if (outer.size > 0) pruneDead(graph);
  }

  #rewriteNode(node: NodeProto, scope: Scope): NodeProto[] | undefined {
    if (node.domain !== "" && node.domain !== "ai.onnx") return undefined;
    const leave = (reason: string): undefined => {
      this.left.push({ node: labelOf(node), operator: node.opType, reason });
    };
    switch (node.opType) {
      case "GRU":
      case "RNN":
        return leave("has no 8-bit kernel");
      case "LSTM": {
        if (isKept(node, this.#keepFloat)) return leave("asked for");
        const weights = [scope.float(node.input[1], 3), scope.float(node.input[2], 3)] as const;
        if (!weights[0] || !weights[1]) return leave("its weights are not stored");
        if (intAttribute(node, "layout", 0) !== 0) return leave("layout is batch first");
        this.converted.push(labelOf(node));
        return [this.#lstm(node, weights[0], weights[1], scope)];
      }
      case "MatMul":
      case "Gemm": {
        if (isKept(node, this.#keepFloat)) return leave("asked for");
        const weight = scope.float(node.input[1], 2);
        if (!weight) return leave("its second operand is not stored");
        if (weight.dims.includes(0n)) return leave("its second operand is empty");
        if (intAttribute(node, "transA", 0) !== 0) return leave("transA is set");
        this.converted.push(labelOf(node));
        return this.#product(node, weight, scope);
      }
      default:
        return undefined;
    }
  }

  /** DynamicQuantizeLinear, MatMulInteger, Cast, times both scales, plus the bias. */
  #product(node: NodeProto, weight: TensorProto, scope: Scope): NodeProto[] {
    const isGemm = node.opType === "Gemm";
    const [rows, columns] = tensorDims(weight) as [number, number];
    const flipped = isGemm && intAttribute(node, "transB", 0) !== 0;
    const alpha = isGemm ? floatAttribute(node, "alpha", 1) : 1;
    const beta = isGemm ? floatAttribute(node, "beta", 1) : 1;
    const plain = flipped ? transposed(tensorToFloat32(weight), rows, columns) : tensorToFloat32(weight);
    const dims = flipped ? [columns, rows] : [rows, columns];
    const { values, scales } = this.#levels(weight.name, scaledBy(plain, alpha), dims);
    const name = (end: string) => this.#names.unique(`${weight.name}/${end}`);
    const stored = scope.store(int8Tensor(name("quantized"), dims, values));
    const scale = scope.store(float32Tensor(name("scale"), scales.length > 1 ? [dims[1]!] : [], scales));
    const output = node.output[0]!;
    const inner = (end: string) => this.#names.unique(`${output}/${end}`);
    const { nodes, quantized, inputScale, zeroPoint } = this.#quantizedInput(node.input[0]!, scope);
    const [integer, float, product] = [inner("integer"), inner("float"), inner("scale")];
    const bias = node.input[2] ?? "";
    const result = bias === "" ? output : inner("product");
    const made = [
      ...nodes,
      makeNode("MatMulInteger", [quantized, stored, zeroPoint], [integer], {}, { name: node.name }),
      makeNode("Cast", [integer], [float], { to: { i: TensorProto_DataType.FLOAT } }),
      makeNode("Mul", [inputScale, scale], [product]),
      makeNode("Mul", [float, product], [result]),
    ];
    if (bias === "") return made;
    let added = bias;
    if (beta !== 1) {
      const factor = scope.store(float32Tensor(this.#names.unique(`${output}/beta`), [], [beta]));
      added = inner("bias");
      made.push(makeNode("Mul", [bias, factor], [added]));
    }
    return [...made, makeNode("Add", [result, added], [output])];
  }

  /** One quantization serves all products that read a tensor. */
  #quantizedInput(
    input: string,
    scope: Scope,
  ): { nodes: NodeProto[]; quantized: string; inputScale: string; zeroPoint: string } {
    const known = scope.quantized.get(input);
    if (known) return { nodes: [], ...known };
    const [quantized, inputScale, zeroPoint] = ["levels", "scale", "zero_point"].map((end) =>
      this.#names.unique(`${input}/${end}`),
    ) as [string, string, string];
    scope.quantized.set(input, { quantized, inputScale, zeroPoint });
    const node = makeNode("DynamicQuantizeLinear", [input], [quantized, inputScale, zeroPoint]);
    return { nodes: [node], quantized, inputScale, zeroPoint };
  }

  #lstm(node: NodeProto, weight: TensorProto, recurrence: TensorProto, scope: Scope): NodeProto {
    this.usesContrib = true;
    const operands = [weight, recurrence].map((tensor) => {
      const [directions, gates, inner] = tensorDims(tensor) as [number, number, number];
      const data = tensorToFloat32(tensor);
      const size = gates * inner;
      const perDirection = Array.from({ length: directions }, (_, at) =>
        this.#levels(
          tensor.name,
          // The kernel wants [direction, input, gates], LSTM has [direction, gates, input].
          transposed(data.subarray(at * size, (at + 1) * size), gates, inner),
          [inner, gates],
        ),
      );
      const values = new Int8Array(data.length);
      perDirection.forEach((levels, at) => values.set(levels.values, at * size));
      const scales = perDirection.flatMap((levels) => [...levels.scales]);
      const scaleDims = this.#options.perChannel ? [directions, gates] : [directions];
      const name = (end: string) => this.#names.unique(`${tensor.name}/${end}`);
      return {
        levels: scope.store(int8Tensor(name("quantized"), [directions, inner, gates], values)),
        scale: scope.store(float32Tensor(name("scale"), scaleDims, scales)),
        zeroPoint: scope.store(int8Tensor(name("zero_point"), scaleDims, new Int8Array(scales.length))),
      };
    });
    const [w, r] = operands as [(typeof operands)[0], (typeof operands)[0]];
    const optional = [3, 4, 5, 6, 7].map((at) => node.input[at] ?? "");
    const made = makeNode(
      "DynamicQuantizeLSTM",
      [node.input[0]!, w.levels, r.levels, ...optional, w.scale, w.zeroPoint, r.scale, r.zeroPoint],
      node.output,
      {},
      { name: node.name, domain: "com.microsoft" },
    );
    made.attribute = node.attribute.filter(({ name }) => name !== "layout");
    // Stated, because the kernel has no default that follows the weights.
    if (stringAttribute(node, "direction", "") === "" && tensorDims(weight)[0] === 2) {
      made.attribute.push(...makeNode("", [], [], { direction: { s: "bidirectional" } }).attribute);
    }
    return made;
  }

  /** Levels of a matrix [inputs, outputs]. */
  #levels(
    name: string,
    data: Float32Array,
    dims: readonly number[],
  ): { values: Int8Array; scales: Float32Array } {
    const { values, scales } = quantizeWeight({
      name,
      data,
      dims,
      axis: this.#options.perChannel ? 1 : undefined,
      reduceRange: this.#options.reduceRange,
    });
    return { values: Int8Array.from(values), scales };
  }
}

/** One graph while it is rewritten. */
class Scope {
  readonly quantized: Map<string, { quantized: string; inputScale: string; zeroPoint: string }>;
  readonly #graph: GraphProto;
  readonly #stored: Stored;

  constructor(
    graph: GraphProto,
    stored: Stored,
    quantized: Map<string, { quantized: string; inputScale: string; zeroPoint: string }>,
  ) {
    this.#graph = graph;
    this.#stored = stored;
    this.quantized = quantized;
  }

  float(name: string | undefined, rank: number): TensorProto | undefined {
    const tensor = this.#stored.get(name ?? "");
    return tensor?.dataType === TensorProto_DataType.FLOAT && tensor.dims.length === rank
      ? tensor
      : undefined;
  }

  store(tensor: TensorProto): string {
    this.#graph.initializer.push(tensor);
    return tensor.name;
  }
}

function scaledBy(values: Float32Array, factor: number): Float32Array {
  return factor === 1 ? values : values.map((value) => value * factor);
}
