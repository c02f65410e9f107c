import { TensorProto_DataType } from "../onnx/generated/onnx_pb.js";
import { initializerMap } from "../onnx/graph.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import { tensorToFloat32, tensorToInt64Numbers } from "../onnx/tensor.js";
import type { AffineParameters } from "./numeric.js";
import type { QuantizedBase } from "./types.js";

/** Endings under which the quantizer stores what belongs to a tensor. */
export const STORED = {
  quantized: "/quantized",
  scale: "/scale",
  zeroPoint: "/zero_point",
  dequantized: "/dequantized",
  float: "/float",
} as const;

/**
 * Reads scales and levels back from a model that `quantizeStatic` wrote; `float` is what it was made from. A model quantized by other means gives
 * an empty base, because its names say nothing. Throws what `decodeModel` throws.
 */
export function readQuantizedBase(bytes: Uint8Array, float?: Uint8Array): QuantizedBase {
  const graph = graphOf(decodeModel(bytes));
  const initializers = initializerMap(graph);
  const activations: Record<string, AffineParameters> = {};
  const weights: Record<string, number[]> = {};
  const levels = new Map<string, Int8Array>();
  const biases = new Map<string, Float32Array>();
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
      if (!stored?.name.endsWith(STORED.quantized)) continue;
      const scales = tensorToFloat32(scale);
      if (stored.dataType === TensorProto_DataType.INT8) {
        weights[name] = [...scales];
        levels.set(name, Int8Array.from(tensorToInt64Numbers(stored)));
      } else if (stored.dataType === TensorProto_DataType.INT32) {
        const values = tensorToInt64Numbers(stored);
        biases.set(
          name,
          Float32Array.from(values, (value, at) => value * scales[scales.length === 1 ? 0 : at]!),
        );
      }
    }
  }
  return { scales: { activations, weights }, levels, biases, ...(float === undefined ? {} : { float }) };
}
