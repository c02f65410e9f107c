import type { GraphProto, NodeProto, TensorProto } from "../onnx/generated/onnx_pb.js";
import {
  definedNames,
  floatAttribute,
  initializerMap,
  intAttribute,
  makeNode,
  producerMap,
  pruneDead,
  sortedNodes,
} from "../onnx/graph.js";
import {
  float32Tensor,
  int32Tensor,
  int8Tensor,
  tensorDims,
  tensorToFloat32,
  uint8Tensor,
} from "../onnx/tensor.js";
import { STORED } from "./base.js";
import {
  affineParameters,
  quantizedRange,
  quantizeValue,
  type AffineParameters,
  type QuantizedType,
} from "./numeric.js";
import type { InputStatistics } from "./input-statistics.js";
import type { NearBase } from "./near-base.js";
import { dataInputs, scaleOwnerOf, type QuantizationPlan } from "./plan.js";
import type { QuantizedBase } from "./types.js";
import { quantizeBias, quantizeWeight, REDUCED_LEVEL_MAX, type QuantizedWeight } from "./weights.js";

export interface RewriteSettings {
  readonly activation: QuantizedType;
  readonly symmetricActivation: boolean;
  readonly weight: QuantizedType;
  readonly perChannel: boolean;
  readonly reduceRange: boolean;
  readonly minimumRealRange?: number;
  /** Parameters of every tensor that owns a scale. */
  readonly activations: ReadonlyMap<string, AffineParameters>;
  /** An earlier version, and what decides how near weights stay to it. */
  readonly near?: {
    readonly base: QuantizedBase;
    readonly changeCost: number;
    /** By what the node writes; a weight of which nothing is known is rounded. */
    readonly statistics: ReadonlyMap<string, InputStatistics>;
    /** Initializers that are the same in the base's float model. */
    readonly unchanged: ReadonlySet<string>;
  };
}

/** What the rewrite decided, for the report and for the next version's base. */
export interface RewriteResult {
  readonly weightScales: Record<string, number[]>;
  /** Names under which quantized activations can be read back as floats. */
  readonly dequantizedNames: ReadonlyMap<string, string>;
}

/**
 * Writes a plan into the graph, in place, as QuantizeLinear/DequantizeLinear pairs (the QDQ form): around every planned
 * activation, and after every weight, bias and constant, which are stored as integers.
 */
export function rewriteGraph(
  graph: GraphProto,
  plan: QuantizationPlan,
  settings: RewriteSettings,
): RewriteResult {
  return new Rewriter(graph, plan, settings).rewrite();
}

class Rewriter {
  readonly #graph: GraphProto;
  readonly #plan: QuantizationPlan;
  readonly #settings: RewriteSettings;
  readonly #initializers: Map<string, TensorProto>;
  readonly #taken: Set<string>;
  readonly #weightScales: Record<string, number[]> = {};
  readonly #dequantized = new Map<string, string>();
  readonly #added: NodeProto[] = [];
  readonly #guards = new Map<string, string>();
  readonly #producers: ReadonlyMap<string, NodeProto>;

  constructor(graph: GraphProto, plan: QuantizationPlan, settings: RewriteSettings) {
    this.#graph = graph;
    this.#plan = plan;
    this.#settings = settings;
    this.#initializers = initializerMap(graph);
    this.#taken = definedNames(graph);
    this.#producers = producerMap(graph);
  }

  rewrite(): RewriteResult {
    for (const node of this.#plan.nodes.keys()) {
      if (this.#plan.nodes.get(node) === "compute") this.#quantizeStored(node);
      else this.#quantizeConstants(node);
    }
    for (const name of this.#plan.tensors) this.#quantizeActivation(name);
    this.#graph.node.push(...this.#added);
    this.#graph.node = sortedNodes(this.#graph);
    pruneDead(this.#graph);
    return { weightScales: this.#weightScales, dequantizedNames: this.#dequantized };
  }

  #quantizeActivation(name: string): void {
    const parameters = this.#parametersOf(name);
    const producer = this.#producers.get(name);
    const fromInteger = producer !== undefined && this.#plan.nodes.has(producer);
    const isOutput = this.#graph.output.some((output) => output.name === name);
    const readers = this.#graph.node.filter((node) => node.input.includes(name));
    let source = name;
    let target = this.#unique(`${name}${STORED.dequantized}`);
    if (isOutput && fromInteger) {
      // The graph output keeps its name, so the producer writes under another one.
      source = this.#unique(`${name}${STORED.float}`);
      target = name;
      producer.output = producer.output.map((entry) => (entry === name ? source : entry));
    }
    const quantized = this.#unique(`${name}${STORED.quantized}`);
    const scale = this.#store(float32Tensor(this.#unique(`${name}${STORED.scale}`), [], [parameters.scale]));
    const zeroPoint = this.#store(
      this.#levels(this.#unique(`${name}${STORED.zeroPoint}`), [], [parameters.zeroPoint]),
    );
    this.#added.push(
      makeNode("QuantizeLinear", [source, scale, zeroPoint], [quantized]),
      makeNode("DequantizeLinear", [quantized, scale, zeroPoint], [target]),
    );
    let shown = isOutput && fromInteger ? target : undefined;
    for (const reader of readers) {
      // A float result loses nothing for float readers; an integer one must not be computed twice for them.
      if (!fromInteger && !this.#plan.nodes.has(reader)) continue;
      const isFloatArgument = (index: number) =>
        dataInputs(reader).length > index || !this.#plan.nodes.has(reader);
      const read = this.#guarded(reader, name, quantized, parameters) ?? target;
      // What nobody reads is dropped from the graph.
      if (shown !== target) shown = read;
      reader.input = reader.input.map((entry, index) =>
        entry === name && isFloatArgument(index) ? read : entry,
      );
    }
    this.#dequantized.set(name, shown ?? target);
  }

  /**
   * ONNX Runtime quantizes the stored weights of a float Conv, ConvTranspose or Gemm by itself, with one scale for the whole tensor,
   * where their input comes from a DequantizeLinear with a single scale (its WeightBiasQuantization). A node that was left in float for
   * its accuracy therefore reads the same values through the same scale written once for each channel.
   */
  #guarded(
    reader: NodeProto,
    name: string,
    quantized: string,
    parameters: AffineParameters,
  ): string | undefined {
    const weight = this.#initializers.get(reader.input[1] ?? "");
    if (this.#plan.nodes.has(reader) || reader.input[0] !== name || !weight) return undefined;
    const along = channelsOf(reader, tensorDims(weight));
    if (!along) return undefined;
    const stem = `${name}/channels_${along.axis}_${along.count}`;
    const known = this.#guards.get(stem);
    if (known !== undefined) return known;
    const result = this.#unique(stem);
    const fill = (value: number) => new Array<number>(along.count).fill(value);
    const scale = float32Tensor(this.#unique(`${stem}/scale`), [along.count], fill(parameters.scale));
    const zeroPoint = this.#levels(
      this.#unique(`${stem}/zero_point`),
      [along.count],
      fill(parameters.zeroPoint),
    );
    const inputs = [quantized, this.#store(scale), this.#store(zeroPoint)];
    this.#added.push(makeNode("DequantizeLinear", inputs, [result], { axis: { i: along.axis } }));
    this.#guards.set(stem, result);
    return result;
  }

  /** Weight and bias of a Conv, Gemm or MatMul. Gemm's alpha and beta are multiplied in, as its 8-bit kernel wants. */
  #quantizeStored(node: NodeProto): void {
    const weightName = node.input[1]!;
    const biasName = node.input[2] ?? "";
    const weight = this.#initializers.get(weightName)!;
    const dims = tensorDims(weight);
    const isGemm = node.opType === "Gemm";
    const axis = node.opType === "Conv" || (isGemm && intAttribute(node, "transB", 0) !== 0) ? 0 : 1;
    const data = scaled(tensorToFloat32(weight), isGemm ? floatAttribute(node, "alpha", 1) : 1);
    const storedBias = this.#initializers.get(biasName);
    const bias =
      storedBias && scaled(tensorToFloat32(storedBias), isGemm ? floatAttribute(node, "beta", 1) : 1);
    if (isGemm) node.attribute = node.attribute.filter(({ name }) => name !== "alpha" && name !== "beta");
    const inputScale = this.#parametersOf(node.input[0]!).scale;
    const baseWeights = this.#settings.near?.base.scales.weights ?? {};
    const baseScales = Object.hasOwn(baseWeights, weightName) ? baseWeights[weightName] : undefined;
    const near = this.#nearBase(node, axis, bias !== undefined);
    const kept = this.#unchanged(node, data.length);
    const quantized =
      kept ??
      quantizeWeight({
        name: weightName,
        data,
        dims,
        axis: this.#settings.perChannel ? axis : undefined,
        reduceRange: this.#settings.reduceRange,
        type: this.#settings.weight,
        minimumRealRange: this.#settings.minimumRealRange ?? 0,
        inputScale,
        ...(bias === undefined ? {} : { bias }),
        ...(baseScales === undefined ? {} : { baseScales }),
        ...(near === undefined ? {} : { near }),
      });
    this.#weightScales[weightName] = [...quantized.scales];
    const perChannel = this.#settings.perChannel;
    const channels = quantized.scales.length;
    const integers = this.#settings.weight === "uint8" ? uint8Tensor : int8Tensor;
    const zeroPoints = new Array<number>(channels).fill(quantized.zeroPoint);
    node.input[1] = this.#dequantize(
      weightName,
      integers("", dims, quantized.values),
      float32Tensor("", perChannel ? [channels] : [], quantized.scales),
      integers("", perChannel ? [channels] : [], zeroPoints),
      axis,
    );
    if (!bias) return;
    const { meanErrors } = quantized;
    const rounded = kept && this.#settings.near?.base.biases.get(biasName);
    const wanted = meanErrors ? bias.map((value, at) => value - meanErrors[at]!) : (rounded ?? bias);
    const quantizedBias = quantizeBias(wanted, inputScale, quantized.scales);
    node.input[2] = this.#dequantize(
      biasName,
      int32Tensor("", [bias.length], quantizedBias.values),
      perChannel
        ? float32Tensor("", [channels], quantizedBias.scales)
        : float32Tensor("", [], [quantizedBias.scales[0]!]),
      int32Tensor("", perChannel ? [channels] : [], new Int32Array(channels)),
      0,
    );
  }

  /** The base's own levels where neither weight nor bias moved. */
  #unchanged(node: NodeProto, length: number): QuantizedWeight | undefined {
    const { near, perChannel, weight, reduceRange } = this.#settings;
    const [, name = "", biasName = ""] = node.input;
    const isSame = (entry: string): boolean => entry === "" || near?.unchanged.has(entry) === true;
    if (!near || weight !== "int8" || !isSame(name) || !isSame(biasName)) return undefined;
    const values = near.base.levels.get(name);
    const scales = near.base.scales.weights[name];
    if (values?.length !== length || !scales || scales.length > 1 !== perChannel) return undefined;
    if (reduceRange && values.some((level) => Math.abs(level) > REDUCED_LEVEL_MAX)) return undefined;
    return { values, zeroPoint: 0, scales: Float32Array.from(scales) };
  }

  #nearBase(node: NodeProto, outputAxis: 0 | 1, hasBias: boolean): NearBase | undefined {
    const { near } = this.#settings;
    const levels = near?.base.levels.get(node.input[1]!);
    const statistics = near?.statistics.get(node.output[0]!);
    if (!near || !levels || !statistics) return undefined;
    return { levels, statistics, outputAxis, changeCost: near.changeCost, hasBias };
  }

  /** Constant operands of Add, Mul and Concat, quantized like an activation over their own values. */
  #quantizeConstants(node: NodeProto): void {
    for (const [index, name] of node.input.entries()) {
      if (!this.#plan.constants.has(name) || !dataInputs(node).includes(name)) continue;
      const tensor = this.#initializers.get(name)!;
      const values = tensorToFloat32(tensor);
      const { activation, symmetricActivation } = this.#settings;
      const parameters = affineParameters(
        values.reduce((a, b) => Math.min(a, b), 0),
        values.reduce((a, b) => Math.max(a, b), 0),
        activation,
        symmetricActivation,
        this.#settings.minimumRealRange,
      );
      const range = quantizedRange(activation);
      node.input[index] = this.#dequantize(
        name,
        this.#levels(
          "",
          tensorDims(tensor),
          Array.from(values, (value) => quantizeValue(value, parameters, range)),
        ),
        float32Tensor("", [], [parameters.scale]),
        this.#levels("", [], [parameters.zeroPoint]),
        0,
      );
    }
  }

  /** Stores integer data with a DequantizeLinear behind it and returns the name of the float result. */
  #dequantize(
    name: string,
    data: TensorProto,
    scale: TensorProto,
    zeroPoint: TensorProto,
    axis: number,
  ): string {
    data.name = this.#unique(`${name}${STORED.quantized}`);
    scale.name = this.#unique(`${name}${STORED.scale}`);
    zeroPoint.name = this.#unique(`${name}${STORED.zeroPoint}`);
    const result = this.#unique(`${name}${STORED.dequantized}`);
    const inputs = [data, scale, zeroPoint].map((tensor) => this.#store(tensor));
    this.#added.push(makeNode("DequantizeLinear", inputs, [result], { axis: { i: axis } }));
    return result;
  }

  #parametersOf(name: string): AffineParameters {
    return this.#settings.activations.get(scaleOwnerOf(this.#plan, name))!;
  }

  #levels(name: string, dims: readonly number[], values: readonly number[]): TensorProto {
    return this.#settings.activation === "uint8"
      ? uint8Tensor(name, dims, values)
      : int8Tensor(name, dims, values);
  }

  #store(tensor: TensorProto): string {
    this.#graph.initializer.push(tensor);
    return tensor.name;
  }

  #unique(stem: string): string {
    let name = stem;
    for (let count = 1; this.#taken.has(name); count++) name = `${stem}_${count}`;
    this.#taken.add(name);
    return name;
  }
}

/** Axis and size of the channels that a product sums over, in its first input. */
function channelsOf(
  node: NodeProto,
  weightDims: readonly number[],
): { readonly axis: number; readonly count: number } | undefined {
  switch (node.opType) {
    case "Conv":
      return { axis: 1, count: weightDims[1]! * intAttribute(node, "group", 1) };
    case "ConvTranspose":
      return { axis: 1, count: weightDims[0]! };
    case "Gemm": {
      const count = weightDims[intAttribute(node, "transB", 0) ? 1 : 0]!;
      return { axis: intAttribute(node, "transA", 0) ? 0 : 1, count };
    }
    default:
      return undefined;
  }
}

function scaled(values: Float32Array, factor: number): Float32Array {
  return factor === 1 ? values : values.map((value) => value * factor);
}
