import { FieldloopError } from "@fieldloop/protocol";
import { checkModel } from "../onnx/check.js";
import type { GraphProto, ValueInfoProto } from "../onnx/generated/onnx_pb.js";
import {
  definedNames,
  initializerMap,
  intAttribute,
  intsAttribute,
  makeNode,
  pruneDead,
} from "../onnx/graph.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { tensorToInt64Numbers } from "../onnx/tensor.js";
import { tidyModel } from "../onnx/tidy.js";
import { upgradeOpset } from "../onnx/upgrade.js";
import type { QuantizeOptions } from "./types.js";

/**
 * A float model ready for rewriting: checked, of operator set 13 or later, constants folded, nothing in it that no output needs.
 * Throws what `checkModel` and `upgradeOpset` throw, and `onnx_unsupported` for a model that is quantized already.
 */
export async function prepareFloat(
  modelBytes: Uint8Array,
  options: Pick<QuantizeOptions, "backend" | "fold"> & {
    readonly upgrade?: boolean;
    readonly foldConstants?: boolean;
  },
): Promise<Uint8Array> {
  checkModel(modelBytes, { allowControlFlow: true });
  const original = decodeModel(modelBytes);
  const quantizedAlready = graphOf(original).node.find(({ opType }) =>
    /^(QuantizeLinear|DynamicQuantize|QLinear|MatMulNBits)/.test(opType),
  );
  if (quantizedAlready) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Quantize: the model is quantized already (node "${quantizedAlready.name}", ${quantizedAlready.opType})`,
    );
  }
  tidyModel(original);
  if (options.upgrade !== false) upgradeOpset(original);
  if (options.foldConstants === false) return encodeModel(original);
  const folded = decodeModel(await options.fold(options.backend, encodeModel(original), "basic"));
  // What no output needs would be calibrated in vain, and the backend keeps it.
  pruneDead(graphOf(folded));
  tidyModel(folded);
  return encodeModel(folded);
}

/**
 * Writes a ReduceMean over both axes of an image as GlobalAveragePool (with Flatten when the axes are dropped), in
 * place: the same sum, but with an 8-bit kernel. Exporters write global pooling either way.
 */
export function meanToPool(graph: GraphProto): void {
  const initializers = initializerMap(graph);
  const ranks = new Map([...graph.valueInfo, ...graph.input].map((info) => [info.name, rankOf(info)]));
  const taken = definedNames(graph);
  graph.node = graph.node.flatMap((node) => {
    const input = node.input[0] ?? "";
    if (node.opType !== "ReduceMean" || node.domain !== "" || ranks.get(input) !== 4) return [node];
    // Operator set 18 moved the axes from an attribute to an input.
    const stored = initializers.get(node.input[1] ?? "");
    const axes = intsAttribute(node, "axes") ?? (stored && tensorToInt64Numbers(stored)) ?? [];
    const image = axes.map((axis) => (axis < 0 ? axis + 4 : axis)).sort((a, b) => a - b);
    if (image.length !== 2 || image[0] !== 2 || image[1] !== 3) return [node];
    const output = node.output[0]!;
    if (intAttribute(node, "keepdims", 1) !== 0) {
      return [makeNode("GlobalAveragePool", [input], [output], {}, { name: node.name })];
    }
    const pooled = `${output}/pooled`;
    if (taken.has(pooled)) return [node];
    return [
      makeNode("GlobalAveragePool", [input], [pooled], {}, { name: node.name }),
      makeNode("Flatten", [pooled], [output], { axis: { i: 1 } }),
    ];
  });
}

function rankOf(info: ValueInfoProto): number | undefined {
  const value = info.type?.value;
  return value?.case === "tensorType" ? value.value.shape?.dim.length : undefined;
}
