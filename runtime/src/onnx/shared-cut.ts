import type { ModelProto, NodeProto } from "./generated/onnx_pb.js";
import { namesRead, sortedNodes } from "./graph.js";
import { graphOf } from "./model.js";
import { isWeighted, storedNames } from "./extract.js";

/**
 * The last tensor through which everything passes that the outputs need of the inputs, with a weighted layer behind it: where a model falls
 * into a backbone and heads that need nothing else. `carried` are inputs that are no part of a frame (state, constants).
 * `undefined` where inputs and outputs meet in no such tensor.
 */
export function sharedCut(model: ModelProto, carried: ReadonlySet<string> = new Set()): string | undefined {
  const graph = graphOf(model);
  const nodes = sortedNodes(graph);
  const stored = storedNames(graph);
  const readers = readerCounts(nodes);
  for (const { name } of graph.output) readers.set(name, (readers.get(name) ?? 0) + 1);
  const isData = (name: string) => name !== "" && !stored.has(name) && !carried.has(name);
  const open = new Set(graph.input.map(({ name }) => name).filter((name) => isData(name)));
  const last = nodes.findLastIndex((node) => isWeighted(node, graph));
  let found: string | undefined;
  for (const node of nodes.slice(0, last)) {
    for (const name of namesRead(node)) {
      const left = (readers.get(name) ?? 0) - 1;
      readers.set(name, left);
      if (left <= 0) open.delete(name);
    }
    for (const name of node.output) if (isData(name) && (readers.get(name) ?? 0) > 0) open.add(name);
    // Whatever comes behind reads this one tensor alone.
    if (open.size === 1 && node.output.some((name) => open.has(name))) [found] = open;
  }
  return found;
}

function readerCounts(nodes: readonly NodeProto[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    for (const name of namesRead(node)) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}
