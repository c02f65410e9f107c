import { functionKey } from "./functions.js";
import type { GraphProto, ModelProto } from "./generated/onnx_pb.js";
import { definedNames, initializerMap, pruneDead, renameTensor, subgraphsOf } from "./graph.js";
import { graphOf } from "./model.js";
import { tidyModel, type TidyReport } from "./tidy.js";
import { tensorToInt64Numbers } from "./tensor.js";

export interface StripReport extends TidyReport {
  /** Nodes that pass their input on when the model runs: Identity, and Dropout outside training. */
  readonly passThroughDropped: readonly string[];
  /** Nodes and stored tensors that no output needs. */
  readonly deadNodesDropped: number;
  readonly initializersDropped: number;
  readonly metadataDropped: number;
}

/**
 * Takes out of a model, in place, what running it does not need: what {@link tidyModel} drops, leftovers of training
 * (Dropout, Identity), whatever no output reads, inner shapes, metadata and local functions that nothing calls. What it
 * computes does not change.
 */
export function stripModel(model: ModelProto): StripReport {
  const tidied = tidyModel(model);
  const graph = graphOf(model);
  const passThroughDropped = dropPassThrough(graph);
  const before = { nodes: graph.node.length, initializers: graph.initializer.length };
  pruneDead(graph);
  graph.valueInfo = [];
  const metadataDropped = model.metadataProps.length + graph.metadataProps.length;
  model.metadataProps = [];
  graph.metadataProps = [];
  for (const node of graph.node) node.metadataProps = [];
  const called = new Set<string>();
  const visit = (nodes: GraphProto["node"]) => {
    for (const node of nodes) {
      called.add(functionKey(node.domain, node.opType));
      for (const body of subgraphsOf(node)) visit(body.node);
    }
  };
  visit(graph.node);
  for (const body of model.functions) visit(body.node);
  model.functions = model.functions.filter((body) => called.has(functionKey(body.domain, body.name)));
  return {
    ...tidied,
    passThroughDropped,
    deadNodesDropped: before.nodes - graph.node.length,
    initializersDropped: before.initializers - graph.initializer.length,
    metadataDropped,
  };
}

function dropPassThrough(graph: GraphProto): string[] {
  const dropped: string[] = [];
  const outputs = new Set(graph.output.map((output) => output.name));
  const stored = initializerMap(graph);
  const inputs = new Set(graph.input.map((input) => input.name));
  const inner = new Set<string>();
  for (const node of graph.node) collectInner(node, inner);
  graph.node = graph.node.filter((node) => {
    const isIdentity = node.opType === "Identity";
    const isDropout = node.opType === "Dropout" && !isTraining(node.input[2] ?? "");
    const isDefault = node.domain === "" || node.domain === "ai.onnx";
    const [from] = node.input;
    const [to, ...others] = node.output;
    if (!isDefault || !(isIdentity || isDropout) || !from || !to) return true;
    if (others.some((name) => name !== "" && isRead(name))) return true;
    // A body that has a tensor of that name means its own by it.
    if (inner.has(from) || inner.has(to)) return true;
    // A graph output keeps its name, so the writer of the input would have to take it: only a node of ours can.
    if (outputs.has(to)) {
      if (inputs.has(from) || stored.has(from) || outputs.has(from)) return true;
      if (!graph.node.some((entry) => entry.output.includes(from))) return true;
      node.output[0] = "";
      renameTensor(graph, from, to);
    } else {
      node.output[0] = "";
      renameReads(graph, to, from);
    }
    dropped.push(node.name || to);
    return false;
  });
  return dropped;

  function isRead(name: string): boolean {
    return outputs.has(name) || graph.node.some((entry) => readsOf(entry).has(name));
  }
  function isTraining(name: string): boolean {
    if (name === "") return false;
    const flag = stored.get(name);
    return flag === undefined || tensorToInt64Numbers(flag)[0] !== 0;
  }
}

function readsOf(node: GraphProto["node"][number]): Set<string> {
  const names = new Set(node.input);
  for (const body of subgraphsOf(node)) {
    for (const inner of body.node) for (const name of readsOf(inner)) names.add(name);
    for (const output of body.output) names.add(output.name);
  }
  return names;
}

/** Names that the bodies of a node define for themselves. */
function collectInner(node: GraphProto["node"][number], into: Set<string>): void {
  for (const body of subgraphsOf(node)) {
    for (const name of definedNames(body)) into.add(name);
    for (const entry of body.node) collectInner(entry, into);
  }
}

/** Everything that reads `from` reads `to`. */
function renameReads(graph: GraphProto, from: string, to: string): void {
  for (const node of graph.node) {
    node.input = node.input.map((name) => (name === from ? to : name));
    for (const body of subgraphsOf(node)) renameReads(body, from, to);
  }
}
