import { FieldloopError } from "@fieldloop/protocol";
import { producersOf, type TrainGraph, type TrainNode } from "./graph.js";

/** The tensors of one weighted operator (weight, bias, a normalization that follows), in graph order. */
export interface Layer {
  readonly node: string;
  readonly op: string;
  readonly tensors: string[];
}

/** How much of a network is trained: its last weighted layer, its last block, everything, the last N layers, or named tensors. */
export type Trainable = "head" | "last" | "all" | { readonly layers: number } | readonly string[];

const WEIGHTED = new Set(["Conv", "ConvTranspose", "Gemm", "MatMul"]);
const PASS_THROUGH = new Set(["Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten"]);

/**
 * Finds the weighted layers that a graph's outputs depend on. Only weights, biases, normalization scales and embedding
 * tables count: a float initializer elsewhere (anchor boxes, input scaling) merely looks trainable. A weight behind
 * Reshape or Transpose keeps the name of its initializer.
 */
export function findLayers(graph: TrainGraph): Layer[] {
  const producers = producersOf(graph.nodes);
  const layers: Layer[] = [];
  const seen = new Set<string>();
  const layerOf = new Map<string, Layer>();
  for (const node of graph.nodes) {
    const tensors = trainableInputs(node, producers)
      .map((name) => weightBehind(name, graph, producers))
      .filter((name) => name !== undefined && !seen.has(name)) as string[];
    if (tensors.length === 0) continue;
    let layer = belongsTo(node, producers, layerOf) ?? (WEIGHTED.has(node.op) ? undefined : layers.at(-1));
    if (!layer) {
      layer = { node: node.name, op: node.op, tensors: [] };
      layers.push(layer);
    }
    for (const tensor of tensors) {
      seen.add(tensor);
      layer.tensors.push(tensor);
    }
    layerOf.set(node.outputs[0]!, layer);
  }
  return layers;
}

/** Input names of a node that may hold something to train. */
function trainableInputs(node: TrainNode, producers: ReadonlyMap<string, TrainNode>): string[] {
  const at = (...indices: number[]) => indices.flatMap((index) => node.inputs[index] || []);
  switch (node.op) {
    case "Conv":
    case "ConvTranspose":
    case "Gemm":
      return at(1, 2);
    case "MatMul":
      return at(0, 1);
    case "BatchNormalization":
    case "LayerNormalization":
      return at(1, 2);
    case "PRelu":
      return at(1);
    case "Gather":
      return at(0);
    case "Add": {
      const follows = node.inputs.some((input) => WEIGHTED.has(producers.get(input)?.op ?? ""));
      return follows ? at(0, 1) : [];
    }
    default:
      return [];
  }
}

function weightBehind(
  name: string,
  graph: TrainGraph,
  producers: ReadonlyMap<string, TrainNode>,
): string | undefined {
  let at = name;
  for (let node = producers.get(at); node && PASS_THROUGH.has(node.op); node = producers.get(at))
    at = node.inputs[0]!;
  const tensor = graph.constants.get(at);
  return tensor?.type === "float32" && graph.initializers.has(at) ? at : undefined;
}

/** A bias added after a weighted operator belongs to that operator's layer. */
function belongsTo(
  node: TrainNode,
  producers: ReadonlyMap<string, TrainNode>,
  layerOf: ReadonlyMap<string, Layer>,
): Layer | undefined {
  if (WEIGHTED.has(node.op)) return undefined;
  for (const input of node.inputs) {
    if (producers.has(input) && layerOf.has(input)) return layerOf.get(input);
  }
  return undefined;
}

/** Chooses the tensors to train. Throws `invalid_argument` when the choice names nothing. */
export function chooseTensors(layers: readonly Layer[], trainable: Trainable): string[] {
  const all = layers.flatMap((layer) => layer.tensors);
  const chosen = chooseFrom(layers, all, trainable);
  if (chosen.length === 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Prepare training: "${JSON.stringify(trainable)}" chooses no tensor out of ${all.length} trainable ones`,
    );
  }
  return chosen;
}

function chooseFrom(layers: readonly Layer[], all: readonly string[], trainable: Trainable): string[] {
  if (trainable === "all") return [...all];
  if (trainable === "head") return lastLayers(layers, 1);
  if (trainable === "last") {
    const lastConv = layers.findLastIndex((layer) => layer.op === "Conv");
    const fromConv = layers.length - lastConv;
    return lastLayers(layers, lastConv >= 0 && fromConv >= 2 ? fromConv : 2);
  }
  if ("layers" in trainable) return lastLayers(layers, trainable.layers);
  const unknown = trainable.filter((name) => !all.includes(name));
  if (unknown.length > 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Prepare training: "${unknown[0]}" is not a trainable tensor`,
    );
  }
  return [...trainable];
}

function lastLayers(layers: readonly Layer[], count: number): string[] {
  return layers.slice(-count).flatMap((layer) => layer.tensors);
}
