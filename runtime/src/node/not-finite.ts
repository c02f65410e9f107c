import { namesRead, nodeLabel, sortedNodes } from "../onnx/graph.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import type { TensorSummary } from "./trial-messages.js";

/** The first node whose inputs are all finite and whose output is not, from a profile of every tensor. */
export function firstNotFinite(
  bytes: Uint8Array,
  tensors: ReadonlyMap<string, TensorSummary>,
): string | undefined {
  const isBad = (name: string) => (tensors.get(name)?.notFinite ?? 0) > 0;
  const node = sortedNodes(graphOf(decodeModel(bytes))).find(
    (entry) => entry.output.some(isBad) && ![...namesRead(entry)].some(isBad),
  );
  return node && nodeLabel(node);
}
