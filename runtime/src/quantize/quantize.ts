import { FieldloopError } from "@fieldloop/protocol";
import { TensorProto_DataType, type GraphProto, type NodeProto } from "../onnx/generated/onnx_pb.js";
import { consumerMap, initializerMap } from "../onnx/graph.js";
import { graphSignature } from "../onnx/inspect.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { elementCount, tensorDims, tensorToFloat32 } from "../onnx/tensor.js";
import { calibrate, type Calibration, type ObservedInput } from "./calibrate.js";
import { compareModels, type TensorPair } from "./compare.js";
import { blockLengthFor, InputObserver, weightShape } from "./input-statistics.js";
import { countKernels } from "./kernels.js";
import { affineParameters, quantizedRange, type AffineParameters } from "./numeric.js";
import type { RealRange } from "./observer.js";
import {
  dataInputs,
  fusedSoftmaxOutputs,
  planQuantization,
  scaleOwnerOf,
  type QuantizationPlan,
} from "./plan.js";
import { padChannels, padLevels } from "./pad-channels.js";
import { meanToPool, prepareFloat } from "./prepare.js";
import { rewriteGraph } from "./rewrite.js";
import type {
  Feeds,
  LayerReport,
  OutputReport,
  QuantizationReport,
  QuantizationScales,
  QuantizeOptions,
  QuantizeResult,
  QuantizedBase,
} from "./types.js";

/**
 * Quantizes a float32 model to 8-bit integers in QDQ form after training, by calibration (ONNX Runtime
 * `quantization.md`, static quantization). Inputs and outputs stay float32 with their names, so the result stands in
 * for the original. What has no integer kernel, and heads behind the last weight, stay float.
 *
 * Throws what `checkModel` and `upgradeOpset` throw, `onnx_unsupported` for a model that is quantized already or has
 * nothing to quantize, `invalid_argument` for unusable options, and `quantization_rejected` for values that are not
 * finite. Whether the result is good enough is the caller's to judge from the report.
 */
export async function quantizeStatic(
  modelBytes: Uint8Array,
  options: QuantizeOptions,
): Promise<QuantizeResult> {
  const quantizer = await openStaticQuantizer(modelBytes, options, options.keepFloat ?? []);
  return quantizer.quantize(options.keepFloat ?? [], options.base && (options.changeCost ?? 0));
}

/** A calibrated model that can be quantized several ways, for a search over the nodes to leave in float. */
export interface StaticQuantizer {
  /** The float model that is compared against: checked, folded, of operator set 13 or later. */
  readonly floatBytes: Uint8Array;
  /** Calibration batches, for comparing. */
  readonly kept: readonly Feeds[];
  /** Names of the nodes that can compute on 8-bit levels, in execution order. */
  readonly quantizable: readonly string[];
  /** Only the model, which is quick. With a `changeCost` near the base, without one as if there were none. */
  rewrite(keepFloat: readonly string[], changeCost?: number): Uint8Array;
  /** The model with its report. */
  quantize(keepFloat: readonly string[], changeCost?: number): Promise<QuantizeResult>;
}

/**
 * Prepares and calibrates a model once. With `keepFloat` the result can only be asked for those very nodes; without, ranges of
 * everything that any choice may need are kept. Throws what {@link quantizeStatic} throws.
 */
export async function openStaticQuantizer(
  modelBytes: Uint8Array,
  options: QuantizeOptions,
  keepFloat?: readonly string[],
): Promise<StaticQuantizer> {
  const floatBytes = await prepare(modelBytes, options);
  const graph = graphOf(decodeModel(floatBytes));
  const whole = planQuantization(graph, new Set());
  const plan = keepFloat === undefined ? whole : planQuantization(graph, new Set(keepFloat));
  if (plan.nodes.size === 0) throw nothingToQuantize(graph);
  const owners = [...plan.tensors].map((name) => scaleOwnerOf(plan, name));
  const names = keepFloat === undefined ? [...owners, ...possibleTensors(graph, plan)] : owners;
  const inputs = observedInputs(graph, plan, options.base);
  const calibration = await calibrate(floatBytes, [...new Set(names)], options, inputs);
  const unchanged = await unchangedSince(graph, options);
  const make = (kept: readonly string[], changeCost: number | undefined) =>
    rewritten(floatBytes, kept, { ...calibration, unchanged }, changeCost, options);
  return {
    floatBytes,
    kept: calibration.kept,
    quantizable: describeLayers(graph, whole).map(({ node }) => node),
    rewrite: (kept, changeCost) => make(kept, changeCost).bytes,
    quantize: async (kept, changeCost) => {
      const made = make(kept, changeCost);
      const report = await reportOn(floatBytes, made, calibration, options);
      const nodesQuantizable = describeLayers(graph, whole).length;
      return {
        bytes: made.bytes,
        report: { ...report, bytesBefore: modelBytes.length, nodesQuantizable },
      };
    },
  };
}

/** The products whose weights the base has too. */
function observedInputs(
  graph: GraphProto,
  plan: QuantizationPlan,
  base: QuantizedBase | undefined,
): ObservedInput[] {
  if (!base) return [];
  const initializers = initializerMap(graph);
  const products = plan.order
    .filter((node) => plan.nodes.get(node) === "compute" && base.levels.has(node.input[1]!))
    .map((node) => ({ node, dims: tensorDims(initializers.get(node.input[1]!)!) }))
    .filter(({ node, dims }) => base.levels.get(node.input[1]!)!.length === elementCount(dims));
  const blockLength = blockLengthFor(products.map(({ node, dims }) => weightShape(node, dims)));
  return products.map(({ node, dims }) => ({
    node: node.output[0]!,
    tensor: node.input[0]!,
    observer: new InputObserver(node, dims, blockLength),
  }));
}

/** Names of initializers that are the same in the float model of the base. */
async function unchangedSince(graph: GraphProto, options: QuantizeOptions): Promise<Set<string>> {
  const float = options.base?.float;
  if (!float) return new Set();
  const before = initializerMap(graphOf(decodeModel(await prepare(float, options))));
  const same = graph.initializer.filter((tensor) => {
    const old = before.get(tensor.name);
    if (![old, tensor].every((entry) => entry?.dataType === TensorProto_DataType.FLOAT)) return false;
    const values = tensorToFloat32(tensor);
    const oldValues = tensorToFloat32(old!);
    return values.length === oldValues.length && values.every((value, at) => value === oldValues[at]);
  });
  return new Set(same.map(({ name }) => name));
}

interface Rewritten {
  readonly bytes: Uint8Array;
  readonly plan: QuantizationPlan;
  readonly layers: ReturnType<typeof describeLayers>;
  readonly dequantizedNames: ReadonlyMap<string, string>;
  readonly scales: QuantizationScales;
}

function rewritten(
  floatBytes: Uint8Array,
  keepFloat: readonly string[],
  calibration: Calibration & { readonly unchanged: ReadonlySet<string> },
  changeCost: number | undefined,
  options: QuantizeOptions,
): Rewritten {
  const base = changeCost === undefined ? undefined : options.base;
  const model = decodeModel(floatBytes);
  const graph = graphOf(model);
  const plan = planQuantization(graph, new Set(keepFloat));
  const symmetric = options.symmetricActivation ?? options.activation === "int8";
  const softmax = fusedSoftmaxOutputs(plan);
  const activations = new Map<string, AffineParameters>();
  for (const tensor of plan.tensors) {
    const name = scaleOwnerOf(plan, tensor);
    const range = softmax.has(name) ? { min: 0, max: 1 } : calibration.ranges.get(name);
    if (!range) throw new FieldloopError("onnx_unsupported", `Calibrate: tensor "${name}" is not float32`);
    activations.set(name, chooseParameters(name, range, symmetric, base, options));
  }
  const layers = describeLayers(graph, plan);
  const { weightScales, dequantizedNames } = rewriteGraph(graph, plan, {
    activation: options.activation,
    weight: options.weight,
    symmetricActivation: symmetric,
    perChannel: options.perChannel,
    reduceRange: options.reduceRange,
    activations,
    ...(options.minimumRealRange === undefined ? {} : { minimumRealRange: options.minimumRealRange }),
    ...(base && changeCost !== undefined
      ? { near: { base, changeCost, statistics: calibration.statistics, unchanged: calibration.unchanged } }
      : {}),
  });
  padLevels(graph);
  const scales = { activations: Object.fromEntries(activations), weights: weightScales };
  return { bytes: encodeModel(model), plan, layers, dequantizedNames, scales };
}

async function reportOn(
  floatBytes: Uint8Array,
  made: Rewritten,
  calibration: Calibration,
  options: QuantizeOptions,
): Promise<Omit<QuantizationReport, "bytesBefore">> {
  const { bytes, plan, layers, dequantizedNames, scales } = made;
  const outputs = graphSignature(graphOf(decodeModel(floatBytes))).outputs.filter(
    (output) => output.type === "float32",
  );
  const pairsInside = new Map(
    layers.map(({ tensor }): [string, TensorPair] => [
      tensor,
      { reference: tensor, test: dequantizedNames.get(tensor) ?? tensor },
    ]),
  );
  const pairsOutside = outputs.map(({ name }): TensorPair => ({ reference: name, test: name }));
  const { kept } = calibration;
  options.onProgress?.({ stage: "compare", done: kept.length });
  const inside = await compareModels(floatBytes, bytes, [...pairsInside.values()], kept, "unfused", options);
  const outside = await compareModels(floatBytes, bytes, pairsOutside, kept, "fused", options);
  return {
    calibrationBatches: calibration.batches,
    comparedBatches: kept.length,
    bytesAfter: bytes.length,
    nodesQuantized: plan.nodes.size,
    nodesFloat: plan.order.length - plan.nodes.size,
    layers: layers.map((layer): LayerReport => {
      const { cosine, sqnrDb } = inside.get(layer.tensor)!;
      return { ...layer, cosine, sqnrDb };
    }),
    outputs: outputs.map(({ name }): OutputReport => ({ name, ...outside.get(name)! })),
    kernels: await countKernels(options.backend, options.fold, bytes),
    scales,
  };
}

/** Every tensor that some choice of nodes to keep in float would quantize. */
function possibleTensors(graph: GraphProto, plan: QuantizationPlan): string[] {
  const read = new Set([...plan.nodes.keys()].flatMap((node) => dataInputs(node)));
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  const written = [...plan.nodes.keys()].flatMap((node) => node.output);
  return [...read, ...written].filter((name) => name !== "" && !stored.has(name));
}

function nothingToQuantize(graph: GraphProto): FieldloopError {
  const recurrent = graph.node.find(({ opType }) => ["LSTM", "GRU", "RNN"].includes(opType));
  const stored = initializerMap(graph);
  const product = graph.node.find(
    ({ opType, input }) => ["Conv", "Gemm", "MatMul"].includes(opType) && stored.has(input[1] ?? ""),
  );
  const hint = recurrent
    ? `; ${recurrent.opType} nodes want dynamic quantization`
    : product
      ? ` that an 8-bit kernel takes; "${product.name || product.output[0]}" (${product.opType}) has its input transposed, or a bias that is not one value an output`
      : "";
  return new FieldloopError(
    "onnx_unsupported",
    `Quantize: no Conv, Gemm or MatMul with stored float32 weights${hint}`,
  );
}

/** As {@link prepareFloat}, with means over the image as pooling and an image's channels as the 8-bit kernels want them. */
async function prepare(modelBytes: Uint8Array, options: QuantizeOptions): Promise<Uint8Array> {
  const folded = decodeModel(await prepareFloat(modelBytes, options));
  meanToPool(graphOf(folded));
  if (options.activation === "uint8") padChannels(graphOf(folded));
  return encodeModel(folded);
}

/** Parameters from the observed range, or those of the base version where they still describe it well. */
function chooseParameters(
  name: string,
  range: RealRange,
  symmetric: boolean,
  base: QuantizedBase | undefined,
  options: QuantizeOptions,
): AffineParameters {
  const { activation, minimumRealRange } = options;
  const fresh = affineParameters(range.min, range.max, activation, symmetric, minimumRealRange);
  const activations = base?.scales.activations ?? {};
  const known = Object.hasOwn(activations, name) ? activations[name] : undefined;
  if (!known) return fresh;
  const levels = quantizedRange(options.activation);
  const low = (levels.min - known.zeroPoint) * known.scale;
  const high = (levels.max - known.zeroPoint) * known.scale;
  const slack = 0.02 * (high - low);
  const covers = Math.min(range.min, 0) >= low - slack && Math.max(range.max, 0) <= high + slack;
  // A clamp is absorbed only at the lowest level, so a range from 0 on may not get another zero point.
  const sameFloor = range.min < 0 || symmetric || known.zeroPoint === levels.min;
  return covers && sameFloor && fresh.scale >= 0.7 * known.scale ? known : fresh;
}

/** Nodes that compute on 8-bit levels with the activation to compare for each, before the graph is rewritten. */
function describeLayers(
  graph: GraphProto,
  plan: QuantizationPlan,
): { readonly node: string; readonly operator: string; readonly tensor: string }[] {
  const consumers = consumerMap(graph);
  const resultOf = (node: NodeProto) => {
    const output = node.output[0]!;
    const reader = (consumers.get(output) ?? []).find((entry) => plan.nodes.get(entry) === "clamp");
    return reader && !plan.tensors.has(output) ? reader.output[0]! : output;
  };
  return plan.order
    .filter((node) => ["compute", "integer"].includes(plan.nodes.get(node) ?? ""))
    .map((node) => ({
      node: node.name || node.output[0]!,
      operator: node.opType,
      tensor: resultOf(node),
    }));
}
