import { decodeModel, graphOf } from "../onnx/model.js";
import { nodeLabel } from "../onnx/graph.js";
import { cleanEngineText } from "./engine-text.js";

/**
 * An engine's error for people: without the paths and C++ signatures of its sources, and with the node's name where the
 * engine gives its operator only.
 */
export function cleanNativeMessage(message: string, model: Uint8Array): string {
  const text = cleanEngineText(message);
  const unnamed =
    /(?:implementation|kernel) for ([A-Za-z0-9_.:]+)\(\d+\) (?:node with name ''|\(node:'')/.exec(text);
  if (unnamed === null) return text;
  const operator = unnamed[1]!.split(/[.:]/).at(-1);
  const node = graphOf(decodeModel(model)).node.find((entry) => entry.opType === operator);
  return node === undefined ? text : `${text} (${nodeLabel(node)})`;
}
