import type { GraphProto, NodeProto, TensorProto } from "./generated/onnx_pb.js";
import { attribute, initializerMap, namesRead, producerMap, sortedNodes } from "./graph.js";
import { decodeModel, encodeModel, graphOf } from "./model.js";
import { storedNames } from "./extract.js";

/** Growth of a file by folding that nobody minds, and the least tensor that is looked at. */
const GROWTH_BYTES_MAX = 256 * 1024;
const TENSOR_BYTES_MIN = 16 * 1024;
/** A folded tensor stays folded where what it was made of takes at least this share of its bytes. */
const MADE_OF_SHARE = 0.5;

/**
 * Folding writes out whatever hangs on no input: a mask that two nodes make of a number comes to megabytes in the file. Where folding made the
 * file larger, such tensors are computed by their own nodes again; the engine folds them once more as it opens the model.
 * @returns `folded` itself where there is nothing to take back
 */
export function unfoldGrown(original: Uint8Array, folded: Uint8Array): Uint8Array {
  if (folded.length - original.length <= GROWTH_BYTES_MAX) return folded;
  const before = graphOf(decodeModel(original));
  const model = decodeModel(folded);
  const graph = graphOf(model);
  const constant = storedNames(before);
  const stored = initializerMap(before);
  const producers = producerMap(before);
  const grown = graph.initializer.filter(({ name, rawData }) => {
    const isMade = producers.has(name) && constant.has(name);
    return isMade && rawData.length >= TENSOR_BYTES_MIN;
  });
  const there = new Set([
    ...graph.initializer.map(({ name }) => name),
    ...graph.node.flatMap(({ output }) => output),
  ]);
  for (const tensor of grown) {
    there.delete(tensor.name);
    const { nodes, tensors } = madeOf(tensor.name, producers, stored, there);
    const isDear = bytesOf(nodes, tensors) >= MADE_OF_SHARE * tensor.rawData.length;
    if (isDear || [...nodes].some((node) => !isFree(node, there))) {
      there.add(tensor.name);
      continue;
    }
    take(graph, tensor, nodes, tensors, there);
  }
  graph.node = sortedNodes(graph);
  return encodeModel(model);
}

/** The nodes that compute a constant tensor, and the stored tensors that they read, beside what the graph has. */
function madeOf(
  name: string,
  producers: ReadonlyMap<string, NodeProto>,
  stored: ReadonlyMap<string, TensorProto>,
  there: ReadonlySet<string>,
): { nodes: Set<NodeProto>; tensors: Set<TensorProto> } {
  const nodes = new Set<NodeProto>();
  const tensors = new Set<TensorProto>();
  const pending = [name];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (there.has(next)) continue;
    const tensor = stored.get(next);
    if (tensor !== undefined) tensors.add(tensor);
    const node = producers.get(next);
    if (node === undefined || nodes.has(node)) continue;
    nodes.add(node);
    pending.push(...namesRead(node));
  }
  return { nodes, tensors };
}

/** Whether the graph can have the node again: it writes nothing that is there, and is no local function, which folding wrote out. */
function isFree({ domain, output }: NodeProto, there: ReadonlySet<string>): boolean {
  return (domain === "" || domain === "ai.onnx") && !output.some((name) => there.has(name));
}

function bytesOf(nodes: ReadonlySet<NodeProto>, tensors: ReadonlySet<TensorProto>): number {
  let bytes = 0;
  for (const tensor of tensors) bytes += tensor.rawData.length + 8 * valuesOf(tensor);
  for (const node of nodes) {
    const value = attribute(node, "value")?.t;
    if (value !== undefined) bytes += value.rawData.length + 8 * valuesOf(value);
  }
  return bytes;
}

/** Values that a tensor has in fields of their type, not as raw bytes. */
function valuesOf({
  floatData,
  int32Data,
  int64Data,
  doubleData,
  uint64Data,
  stringData,
}: TensorProto): number {
  const fields = [floatData, int32Data, int64Data, doubleData, uint64Data, stringData];
  return fields.reduce((sum, { length }) => sum + length, 0);
}

function take(
  graph: GraphProto,
  tensor: TensorProto,
  nodes: ReadonlySet<NodeProto>,
  tensors: ReadonlySet<TensorProto>,
  there: Set<string>,
): void {
  graph.initializer = [...graph.initializer.filter((entry) => entry !== tensor), ...tensors];
  graph.node.unshift(...nodes);
  for (const { name } of tensors) there.add(name);
  for (const { output } of nodes) for (const name of output) there.add(name);
}
