import { pruneGraph, sizeOf } from "./graph.js";
import { chooseTensors, findLayers, type Layer, type Trainable } from "./layers.js";
import { graphFromBytes } from "./onnx-form.js";
import { GRADIENT_RULES } from "./rules/table.js";
import { dependents } from "./tape.js";

/** What training a model would do, from its file alone. */
export interface TrainingPlan {
  readonly opset: number;
  readonly layers: readonly Layer[];
  readonly parameterCount: number;
  readonly trainedTensors: readonly string[];
  readonly trainedParameterCount: number;
  /** Nodes between the trained tensors and the outputs whose operators have no gradient: training will be refused. */
  readonly blockers: readonly { readonly node: string; readonly op: string }[];
}

/**
 * Reads which layers `output` (the first one when absent) depends on, which of them `trainable` chooses, and what stands
 * in the way. Runs nothing.
 */
export function planTraining(model: Uint8Array, trainable: Trainable = "all", output?: string): TrainingPlan {
  const whole = graphFromBytes(model);
  const graph = { ...whole, outputs: [output ?? whole.outputs[0]!] };
  pruneGraph(graph);
  const layers = findLayers(graph);
  const trainedTensors = chooseTensors(layers, trainable);
  const count = (names: readonly string[]) =>
    names.reduce((sum, name) => sum + sizeOf(graph.constants.get(name)!.dims), 0);
  const above = dependents(graph.nodes, trainedTensors);
  const blockers = graph.nodes
    .filter((node) => node.inputs.some((input) => above.has(input)))
    // Upsample and old forms of the others are rewritten before gradients are built.
    .filter((node) => !GRADIENT_RULES[node.op] && node.op !== "Upsample" && node.op !== "Shape")
    .map(({ name, op }) => ({ node: name, op }));
  return {
    opset: graph.opset,
    layers,
    parameterCount: count(layers.flatMap((layer) => layer.tensors)),
    trainedTensors,
    trainedParameterCount: count(trainedTensors),
    blockers,
  };
}
