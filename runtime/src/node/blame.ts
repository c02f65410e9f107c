import { clone, create } from "@bufbuild/protobuf";
import { ModelProtoSchema, ValueInfoProtoSchema, type NodeProto } from "../onnx/generated/onnx_pb.js";
import { namesRead, nodeLabel, pruneDead, sortedNodes } from "../onnx/graph.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import type { ScratchEnd } from "./scratch-process.js";

/** For one part of the graph: enough for any that ends by itself, short enough to wait for several that do not. */
const PART_TIMEOUT_MS = 5_000;

/**
 * Finds the node at which a model ends the process that runs it, by halving: the first node in execution order with
 * which the graph up to there ends it too. Takes about log2(nodes) runs.
 * @param endOf how a run of a part ends, `undefined` where it ends well
 * @returns `node "name" (Operator)`, or `undefined` where the graph ends well node by node
 */
export async function blameNode(
  bytes: Uint8Array,
  timeoutMs: number,
  endOf: (part: Uint8Array, timeoutMs: number) => Promise<ScratchEnd | undefined>,
): Promise<string | undefined> {
  const model = decodeModel(bytes);
  const order = sortedNodes(graphOf(model));
  const partMs = Math.min(timeoutMs, PART_TIMEOUT_MS);
  const endsAt = async (count: number) => {
    const part = clone(ModelProtoSchema, model);
    const graph = graphOf(part);
    graph.output = sinkNames(order.slice(0, count)).map((name) => create(ValueInfoProtoSchema, { name }));
    if (graph.output.length === 0) return false;
    pruneDead(graph);
    return (await endOf(encodeModel(part), partMs)) !== undefined;
  };
  let sound = 0;
  let fatal = order.length;
  if (!(await endsAt(fatal))) return undefined;
  while (fatal - sound > 1) {
    const middle = (sound + fatal) >> 1;
    if (await endsAt(middle)) fatal = middle;
    else sound = middle;
  }
  return nodeLabel(order[fatal - 1]!);
}

/** What the nodes write and none of them reads: asking for it runs them all. */
function sinkNames(nodes: readonly NodeProto[]): string[] {
  const read = new Set(nodes.flatMap((node) => [...namesRead(node)]));
  return nodes.flatMap((node) => node.output.filter((name) => name !== "" && !read.has(name)));
}
