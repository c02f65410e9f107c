import { FieldloopError } from "@fieldloop/protocol";
import { Emitter } from "./emitter.js";
import { pruneGraph, sizeOf, type TrainGraph } from "./graph.js";
import { appendLoss, type LossKind } from "./losses.js";
import { graphToBytes } from "./onnx-form.js";
import type { PreparedGraph } from "./prepare.js";
import { appendGradients } from "./tape.js";

export const TARGET_INPUT = "training/target";
export const WEIGHTS_INPUT = "training/row_weights";

/** A trained tensor: its name in the file, its place in the flat parameter array, and the output with its gradient. */
export interface Parameter {
  readonly name: string;
  readonly dims: readonly number[];
  readonly size: number;
  readonly offset: number;
  readonly gradientOutput: string;
}

/** One ONNX graph that maps (input, target, row weights, parameters) to (loss, gradients). */
export interface TrainingGraph {
  readonly bytes: Uint8Array;
  readonly batch: number;
  readonly inputName: string;
  readonly inputDims: readonly number[];
  readonly targetSize: number;
  readonly lossOutput: string;
  readonly parameters: readonly Parameter[];
  readonly parameterCount: number;
  readonly nodeCount: number;
}

/**
 * Appends loss and gradients to a prepared graph and encodes it. Trained tensors become inputs; frozen ones stay
 * initializers, so that the backend may pre-pack them: a head-only step then costs no more than inference.
 */
export function buildTrainingGraph(
  prepared: PreparedGraph,
  kind: LossKind,
  logitScale: number,
): TrainingGraph {
  const { input, trained } = prepared;
  const batch = input.dims[0]!;
  const graph: TrainGraph = {
    ...prepared.graph,
    inputs: [...prepared.graph.inputs],
    constants: new Map(prepared.graph.constants),
    nodes: prepared.graph.nodes.map((node) => ({
      ...node,
      inputs: [...node.inputs],
      outputs: [...node.outputs],
    })),
  };
  const shapes = new Map(prepared.shapes);
  const emit = new Emitter(graph, shapes);
  const forward = [...graph.nodes];
  const output = emit.value(prepared.output);
  const targetSize = sizeOf(output.dims) / batch;
  for (const [name, dims] of [
    [TARGET_INPUT, [batch, targetSize]],
    [WEIGHTS_INPUT, [batch, 1]],
  ] as const) {
    graph.inputs.push({ name, type: "float32", dims });
    shapes.set(name, dims);
  }
  const { loss, seed } = appendLoss(
    emit,
    kind,
    output,
    emit.value(TARGET_INPUT),
    emit.value(WEIGHTS_INPUT),
    logitScale,
  );
  const gradients = appendGradients(forward, emit, new Map([[prepared.output, seed]]), trained);
  const parameters: Parameter[] = [];
  const outputs = [loss.name];
  let offset = 0;
  for (const name of trained) {
    const gradient = gradients.get(name);
    if (!gradient) continue;
    const { dims } = emit.value(name);
    // Two tensors may share one gradient value, but a graph names each output once.
    const gradientOutput = emit.op("Identity", [gradient], dims).name;
    graph.constants.delete(name);
    graph.inputs.push({ name, type: "float32", dims });
    parameters.push({ name, dims, size: sizeOf(dims), offset, gradientOutput });
    outputs.push(gradientOutput);
    offset += sizeOf(dims);
  }
  if (parameters.length === 0) {
    throw new FieldloopError(
      "invalid_argument",
      "Build gradients: the loss depends on none of the chosen tensors",
    );
  }
  const whole: TrainGraph = { ...graph, outputs };
  pruneGraph(whole);
  return {
    bytes: graphToBytes(whole),
    batch,
    inputName: input.name,
    inputDims: input.dims,
    targetSize,
    lossOutput: loss.name,
    parameters,
    parameterCount: offset,
    nodeCount: whole.nodes.length,
  };
}
