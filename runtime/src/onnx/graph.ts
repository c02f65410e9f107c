import { create } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  FunctionProtoSchema,
  NodeProtoSchema,
  type AttributeProto,
  type FunctionProto,
  type GraphProto,
  type NodeProto,
  type TensorProto,
} from "./generated/onnx_pb.js";
import { clampToNumber } from "./tensor.js";

/** One attribute to write; the kind is explicit because a float attribute with the value 1 must stay a float. */
export type AttributeValue =
  | { readonly f: number }
  | { readonly i: number | bigint }
  | { readonly s: string }
  | { readonly t: TensorProto }
  | { readonly g: GraphProto }
  | { readonly floats: readonly number[] }
  | { readonly ints: readonly (number | bigint)[] }
  | { readonly strings: readonly string[] };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Builds the attribute message of one {@link AttributeValue}. */
export function makeAttribute(name: string, value: AttributeValue): AttributeProto {
  const type = AttributeProto_AttributeType;
  if ("f" in value) return create(AttributeProtoSchema, { name, type: type.FLOAT, f: value.f });
  if ("i" in value) return create(AttributeProtoSchema, { name, type: type.INT, i: BigInt(value.i) });
  if ("s" in value)
    return create(AttributeProtoSchema, { name, type: type.STRING, s: encoder.encode(value.s) });
  if ("t" in value) return create(AttributeProtoSchema, { name, type: type.TENSOR, t: value.t });
  if ("g" in value) return create(AttributeProtoSchema, { name, type: type.GRAPH, g: value.g });
  if ("floats" in value)
    return create(AttributeProtoSchema, { name, type: type.FLOATS, floats: [...value.floats] });
  if ("ints" in value)
    return create(AttributeProtoSchema, { name, type: type.INTS, ints: value.ints.map(BigInt) });
  return create(AttributeProtoSchema, {
    name,
    type: type.STRINGS,
    strings: value.strings.map((text) => encoder.encode(text)),
  });
}

/** Builds a node of the default domain (or `domain`). */
export function makeNode(
  opType: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Readonly<Record<string, AttributeValue>> = {},
  options: { readonly name?: string; readonly domain?: string } = {},
): NodeProto {
  return create(NodeProtoSchema, {
    opType,
    input: [...inputs],
    output: [...outputs],
    attribute: Object.entries(attributes).map(([name, value]) => makeAttribute(name, value)),
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(options.domain === undefined ? {} : { domain: options.domain }),
  });
}

/** Builds a local function of a model: operators of its own, written out where it is called. */
export function makeFunction(
  domain: string,
  name: string,
  inputs: readonly string[],
  outputs: readonly string[],
  nodes: readonly NodeProto[],
): FunctionProto {
  return create(FunctionProtoSchema, {
    domain,
    name,
    input: [...inputs],
    output: [...outputs],
    node: [...nodes],
  });
}

/** The attribute with this name, or undefined. */
export function attribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((entry) => entry.name === name);
}

/** An integer attribute as a number, or `fallback` when absent. */
export function intAttribute(node: NodeProto, name: string, fallback: number): number {
  const found = attribute(node, name);
  return found ? clampToNumber(found.i) : fallback;
}

/** A list of integers as numbers (clamped to the exact range), or undefined when absent. */
export function intsAttribute(node: NodeProto, name: string): number[] | undefined {
  return attribute(node, name)?.ints.map(clampToNumber);
}

/** A float attribute, or `fallback` when absent. */
export function floatAttribute(node: NodeProto, name: string, fallback: number): number {
  return attribute(node, name)?.f ?? fallback;
}

/** A string attribute, or `fallback` when absent. */
export function stringAttribute(node: NodeProto, name: string, fallback: string): string {
  const found = attribute(node, name);
  return found ? decoder.decode(found.s) : fallback;
}

/** Initializers of a graph by name. */
export function initializerMap(graph: GraphProto): Map<string, TensorProto> {
  return new Map(graph.initializer.map((tensor) => [tensor.name, tensor]));
}

/** What a Constant node holds; undefined for other nodes, and for a constant that is no tensor. */
export function constantTensor(node: NodeProto): TensorProto | undefined {
  return node.opType === "Constant" ? attribute(node, "value")?.t : undefined;
}

/** A graph, or the body of a local function. */
type GraphBody = Pick<GraphProto, "node"> & Partial<Pick<GraphProto, "initializer">>;

/** Initializers and the values of Constant nodes, by the name under which nodes read them. */
export function storedTensors({ initializer = [], node: nodes }: GraphBody): Map<string, TensorProto> {
  const stored = new Map(initializer.map((tensor) => [tensor.name, tensor]));
  for (const node of nodes) {
    const value = constantTensor(node);
    if (value) stored.set(node.output[0] ?? "", value);
  }
  return stored;
}

/** Every written tensor name with its node. */
export function producerMap(graph: GraphProto): Map<string, NodeProto> {
  const producers = new Map<string, NodeProto>();
  for (const node of graph.node) {
    for (const name of node.output) if (name !== "") producers.set(name, node);
  }
  return producers;
}

/** Every read tensor name with the nodes that read it, in graph order, subgraph captures included. */
export function consumerMap(graph: GraphProto): Map<string, NodeProto[]> {
  const consumers = new Map<string, NodeProto[]>();
  for (const node of graph.node) {
    for (const name of namesRead(node)) {
      const list = consumers.get(name);
      if (list) list.push(node);
      else consumers.set(name, [node]);
    }
  }
  return consumers;
}

/** Distinct tensor names that a node reads: its inputs, and whatever its subgraphs name from outside. */
export function namesRead(node: NodeProto): Set<string> {
  const names = new Set(node.input.filter((name) => name !== ""));
  for (const graph of subgraphsOf(node)) {
    for (const inner of graph.node) for (const name of namesRead(inner)) names.add(name);
    for (const output of graph.output) names.add(output.name);
  }
  return names;
}

/** Graphs held in a node's attributes: bodies of If, Loop and Scan. */
export function subgraphsOf(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap((entry) => (entry.g ? [entry.g, ...entry.graphs] : entry.graphs));
}

/**
 * Drops, in place, every node that no graph output needs, then every initializer and value description that nothing
 * names any more. Graph inputs stay, because they are the model's signature.
 */
export function pruneDead(graph: GraphProto): void {
  const producers = producerMap(graph);
  const live = new Set<NodeProto>();
  const pending = graph.output.map((output) => output.name);
  const needed = new Set(pending);
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const node = producers.get(name);
    if (!node || live.has(node)) continue;
    live.add(node);
    for (const read of namesRead(node)) {
      if (needed.has(read)) continue;
      needed.add(read);
      pending.push(read);
    }
  }
  graph.node = graph.node.filter((node) => live.has(node));
  graph.initializer = graph.initializer.filter((tensor) => needed.has(tensor.name));
  const written = new Set(graph.node.flatMap((node) => node.output));
  graph.valueInfo = graph.valueInfo.filter((info) => needed.has(info.name) || written.has(info.name));
}

/** Renames a tensor everywhere in the graph, in place: inputs, outputs, initializers, nodes, subgraph captures. */
export function renameTensor(graph: GraphProto, from: string, to: string): void {
  if (from === to) return;
  const rename = (name: string) => (name === from ? to : name);
  for (const named of [graph.input, graph.output, graph.valueInfo, graph.initializer].flat()) {
    named.name = rename(named.name);
  }
  for (const node of graph.node) {
    node.input = node.input.map(rename);
    node.output = node.output.map(rename);
    for (const inner of subgraphsOf(node)) {
      // A name that the subgraph defines itself shadows the outer one.
      if (!definedNames(inner).has(from)) renameTensor(inner, from, to);
    }
  }
}

/** Names a graph defines itself: inputs, initializers and node outputs. */
export function definedNames(graph: GraphProto): Set<string> {
  const names = new Set<string>();
  for (const input of graph.input) names.add(input.name);
  for (const tensor of graph.initializer) names.add(tensor.name);
  for (const node of graph.node) for (const name of node.output) if (name !== "") names.add(name);
  return names;
}

/** Every name that a graph and its bodies define: a new one may not shadow any. */
export function namesWithin(graph: GraphProto): Set<string> {
  const names = definedNames(graph);
  for (const node of graph.node) {
    for (const body of subgraphsOf(node)) for (const name of namesWithin(body)) names.add(name);
  }
  return names;
}

/**
 * Nodes in an order where each comes after the producers of what it reads (Kahn; stable for an ordered graph).
 * Throws `onnx_malformed` for a cycle.
 */
export function sortedNodes(graph: GraphProto): NodeProto[] {
  const producers = producerMap(graph);
  const position = new Map(graph.node.map((node, index) => [node, index]));
  const state = new Map<NodeProto, "open" | "done">();
  const order: NodeProto[] = [];
  for (const root of graph.node) {
    const stack = [root];
    while (stack.length > 0) {
      const node = stack[stack.length - 1]!;
      if (state.get(node) === "done") {
        stack.pop();
        continue;
      }
      const before = [...namesRead(node)]
        .map((name) => producers.get(name))
        .filter(
          (producer): producer is NodeProto => producer !== undefined && state.get(producer) !== "done",
        );
      if (before.length === 0) {
        state.set(node, "done");
        order.push(node);
        stack.pop();
        continue;
      }
      if (state.get(node) === "open") {
        const label = node.name || node.opType;
        throw new FieldloopError("onnx_malformed", `Order graph: node "${label}" is part of a cycle`);
      }
      state.set(node, "open");
      before.sort((a, b) => position.get(b)! - position.get(a)!);
      stack.push(...before);
    }
  }
  return order;
}

/** `node "name" (Operator)`; the first output stands for a name that is missing. */
export function nodeLabel(node: NodeProto): string {
  const name = node.name || node.output.find((output) => output !== "") || "";
  return `node ${JSON.stringify(name.slice(0, 200))} (${node.opType.slice(0, 100)})`;
}
