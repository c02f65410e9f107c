import { TensorProto_DataType, type TensorProto } from "../onnx/generated/onnx_pb.js";
import { initializerMap } from "../onnx/graph.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import { tensorToFloat32, tensorToInt64Numbers } from "../onnx/tensor.js";
import type { AffineParameters } from "./numeric.js";
import type { QuantizationScales } from "./types.js";

/** What a version that devices already have was quantized to; see `QuantizeOptions.baseScales` and `baseLevels`. */
export interface QuantizedBase {
  readonly scales: QuantizationScales;
  /** int8 levels of each weight by its name in the float model. */
  readonly levels: ReadonlyMap<string, Int8Array>;
}

/** Endings under which the quantizer stores what belongs to a tensor. */
export const STORED = {
  quantized: "/quantized",
  scale: "/scale",
  zeroPoint: "/zero_point",
  dequantized: "/dequantized",
  float: "/float",
} as const;

/**
 * Reads scales and weight levels back from a model that `quantizeStatic` wrote. A model quantized by other means gives
 * an empty base, because its names say nothing. Throws what `decodeModel` throws.
 */
export function readQuantizedBase(bytes: Uint8Array): QuantizedBase {
  const graph = graphOf(decodeModel(bytes));
  const initializers = initializerMap(graph);
  const activations: Record<string, AffineParameters> = {};
  const weights: Record<string, number[]> = {};
  const levels = new Map<string, Int8Array>();
  for (const node of graph.node) {
    const scale = initializers.get(node.input[1] ?? "");
    const zeroPoint = initializers.get(node.input[2] ?? "");
    if (!scale || !zeroPoint || !scale.name.endsWith(STORED.scale)) continue;
    const name = scale.name.slice(0, -STORED.scale.length);
    if (node.opType === "QuantizeLinear") {
      const values = tensorToFloat32(scale);
      if (values.length === 1) {
        activations[name] = { scale: values[0]!, zeroPoint: tensorToInt64Numbers(zeroPoint)[0]! };
      }
    } else if (node.opType === "DequantizeLinear") {
      const stored = initializers.get(node.input[0] ?? "");
      if (!isWeight(stored)) continue;
      weights[name] = [...tensorToFloat32(scale)];
      levels.set(name, Int8Array.from(tensorToInt64Numbers(stored)));
    }
  }
  return { scales: { activations, weights }, levels };
}

function isWeight(tensor: TensorProto | undefined): tensor is TensorProto {
  return tensor?.dataType === TensorProto_DataType.INT8 && tensor.name.endsWith(STORED.quantized);
}
