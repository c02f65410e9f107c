import { FieldloopError } from "@fieldloop/protocol";
import { checkModel } from "../onnx/check.js";
import type { GraphProto, NodeProto } from "../onnx/generated/onnx_pb.js";
import { consumerMap, pruneDead } from "../onnx/graph.js";
import { graphSignature } from "../onnx/inspect.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { tidyModel } from "../onnx/tidy.js";
import { upgradeOpset } from "../onnx/upgrade.js";
import { calibrate } from "./calibrate.js";
import { compareModels, type TensorPair } from "./compare.js";
import { countKernels } from "./kernels.js";
import { affineParameters, quantizedRange, type AffineParameters } from "./numeric.js";
import type { RealRange } from "./observer.js";
import { fusedSoftmaxOutputs, planQuantization, scaleOwnerOf, type QuantizationPlan } from "./plan.js";
import { meanToPool } from "./prepare.js";
import { rewriteGraph } from "./rewrite.js";
import type { LayerReport, OutputReport, QuantizeOptions, QuantizeResult } from "./types.js";

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
  const floatBytes = await prepare(modelBytes, options);
  const model = decodeModel(floatBytes);
  const graph = graphOf(model);
  const plan = planQuantization(graph, new Set(options.keepFloat));
  if (plan.nodes.size === 0) {
    throw new FieldloopError(
      "onnx_unsupported",
      "Quantize: no Conv, Gemm or MatMul with stored float32 weights",
    );
  }
  const owners = [...new Set([...plan.tensors].map((name) => scaleOwnerOf(plan, name)))];
  const calibration = await calibrate(floatBytes, owners, options);
  const symmetric = options.symmetricActivation ?? options.activation === "int8";
  const softmax = fusedSoftmaxOutputs(plan);
  const activations = new Map(
    owners.map((name) => {
      const range = softmax.has(name) ? { min: 0, max: 1 } : calibration.ranges.get(name)!;
      return [name, chooseParameters(name, range, symmetric, options)];
    }),
  );
  const layers = describeLayers(graph, plan);
  const { weightScales, dequantizedNames } = rewriteGraph(graph, plan, {
    activation: options.activation,
    symmetricActivation: symmetric,
    perChannel: options.perChannel,
    reduceRange: options.reduceRange,
    activations,
    ...(options.baseScales === undefined ? {} : { baseWeights: options.baseScales.weights }),
    ...(options.baseLevels === undefined ? {} : { baseLevels: options.baseLevels }),
    ...(options.hysteresis === undefined ? {} : { hysteresis: options.hysteresis }),
  });
  const bytes = encodeModel(model);

  const outputs = graphSignature(graph).outputs.filter((output) => output.type === "float32");
  const pairsInside = new Map(
    layers.map(({ tensor }): [string, TensorPair] => [
      tensor,
      { reference: tensor, test: dequantizedNames.get(tensor) ?? tensor },
    ]),
  );
  const pairsOutside = outputs.map(({ name }): TensorPair => ({ reference: name, test: name }));
  const { kept } = calibration;
  const inside = await compareModels(floatBytes, bytes, [...pairsInside.values()], kept, "unfused", options);
  const outside = await compareModels(floatBytes, bytes, pairsOutside, kept, "fused", options);
  return {
    bytes,
    report: {
      calibrationBatches: calibration.batches,
      comparedBatches: kept.length,
      bytesBefore: modelBytes.length,
      bytesAfter: bytes.length,
      nodesQuantized: plan.nodes.size,
      nodesFloat: plan.order.length - plan.nodes.size,
      layers: layers.map((layer): LayerReport => {
        const { cosine, sqnrDb } = inside.get(layer.tensor)!;
        return { ...layer, cosine, sqnrDb };
      }),
      outputs: outputs.map(({ name }): OutputReport => ({ name, ...outside.get(name)! })),
      kernels: await countKernels(options.backend, options.fold, bytes),
      scales: { activations: Object.fromEntries(activations), weights: weightScales },
    },
  };
}

/** Checks, brings to operator set 13, folds what is constant, and writes means over the image as pooling. */
async function prepare(modelBytes: Uint8Array, options: QuantizeOptions): Promise<Uint8Array> {
  checkModel(modelBytes, { allowControlFlow: true });
  const original = decodeModel(modelBytes);
  const quantizedAlready = graphOf(original).node.find(({ opType }) =>
    /^(QuantizeLinear|QLinear)/.test(opType),
  );
  if (quantizedAlready) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Quantize: the model is quantized already (node "${quantizedAlready.name}", ${quantizedAlready.opType})`,
    );
  }
  tidyModel(original);
  upgradeOpset(original);
  const folded = decodeModel(await options.fold(options.backend, encodeModel(original), "basic"));
  meanToPool(graphOf(folded));
  // What no output needs would be calibrated in vain, and the backend keeps it.
  pruneDead(graphOf(folded));
  tidyModel(folded);
  return encodeModel(folded);
}

/** Parameters from the observed range, or those of the base version where they still describe it well. */
function chooseParameters(
  name: string,
  range: RealRange,
  symmetric: boolean,
  options: QuantizeOptions,
): AffineParameters {
  const fresh = affineParameters(range.min, range.max, options.activation, symmetric);
  const activations = options.baseScales?.activations ?? {};
  const base = Object.hasOwn(activations, name) ? activations[name] : undefined;
  if (!base) return fresh;
  const levels = quantizedRange(options.activation);
  const low = (levels.min - base.zeroPoint) * base.scale;
  const high = (levels.max - base.zeroPoint) * base.scale;
  const slack = 0.02 * (high - low);
  const covers = Math.min(range.min, 0) >= low - slack && Math.max(range.max, 0) <= high + slack;
  // A clamp is absorbed only at the lowest level, so a range from 0 on may not get another zero point.
  const sameFloor = range.min < 0 || symmetric || base.zeroPoint === levels.min;
  return covers && sameFloor && fresh.scale >= 0.7 * base.scale ? base : fresh;
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
