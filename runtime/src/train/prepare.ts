import { FieldloopError } from "@fieldloop/protocol";
import type { Backend, Tensor } from "../backend.js";
import { decodeModel } from "../onnx/model.js";
import { upgradeOpset } from "../onnx/upgrade.js";
import {
  intTensor,
  numbersOf,
  producersOf,
  pruneGraph,
  sizeOf,
  type GraphInput,
  type TrainGraph,
} from "./graph.js";
import { chooseTensors, findLayers, type Layer, type Trainable } from "./layers.js";
import type { LossKind } from "./losses.js";
import { graphFromModel, graphToBytes } from "./onnx-form.js";
import { dependents } from "./tape.js";
import { upgradeGraph } from "./upgrade.js";

/** What a graph may end in after its logits. */
export type FinalActivation = "softmax" | "sigmoid" | "none";

const STRIPPED_OPS: Readonly<Record<FinalActivation, readonly string[]>> = {
  softmax: ["Softmax", "LogSoftmax"],
  sigmoid: ["Sigmoid"],
  none: [],
};

/** The activation that a loss on logits makes up for. */
export function stripFor(loss: LossKind): FinalActivation {
  if (loss === "cross_entropy") return "softmax";
  return loss === "binary_cross_entropy" ? "sigmoid" : "none";
}

export interface ForwardOptions {
  readonly backend: Backend;
  readonly batch: number;
  /** Output to compute; the first one when absent. */
  readonly output?: string | undefined;
  /** Final activation to leave out, so that the output is logits. */
  readonly strip: FinalActivation;
  readonly executionProvider: string;
  readonly threadCount: number;
}

export interface PrepareOptions extends ForwardOptions {
  readonly trainable: Trainable;
}

/** A model's graph at the training opset and one batch size, with one output. */
export interface ForwardGraph {
  readonly graph: TrainGraph;
  readonly input: GraphInput;
  readonly output: string;
}

/** A forward graph with static shapes and everything constant folded, ready for a loss and gradients. */
export interface PreparedGraph {
  readonly graph: TrainGraph;
  readonly shapes: Map<string, readonly number[]>;
  readonly input: GraphInput;
  /** Value that the loss reads: logits for a classifier, the reconstruction for an autoencoder. */
  readonly output: string;
  readonly layers: readonly Layer[];
  /** Initializers to train, in graph order. */
  readonly trained: readonly string[];
}

/** Reads a model and brings it to the training opset, one output and one batch size. */
export function loadForward(
  model: Uint8Array,
  options: Pick<ForwardOptions, "batch" | "output" | "strip">,
): ForwardGraph {
  const decoded = decodeModel(model);
  // Before the upgrade, which may spread an old Softmax over several nodes; names of values stay.
  const output = chooseOutput(graphFromModel(decoded), options);
  upgradeOpset(decoded);
  const graph = upgradeGraph({ ...graphFromModel(decoded), outputs: [output] });
  pruneGraph(graph);
  const input = fixBatch(graph, options.batch);
  return { graph, input, output };
}

/**
 * Loads a model, chooses what is trained, and lets the backend run it once to learn every shape and to fold what
 * depends neither on the input nor on a trained tensor.
 */
export async function prepareGraph(model: Uint8Array, options: PrepareOptions): Promise<PreparedGraph> {
  const { graph, input, output } = loadForward(model, options);
  const layers = findLayers(graph);
  const trained = chooseTensors(layers, options.trainable);
  const probed = await probe(graph, input, options);
  const shapes = new Map<string, readonly number[]>([[input.name, input.dims]]);
  for (const [name, tensor] of graph.constants) shapes.set(name, tensor.dims);
  for (const [name, tensor] of probed) shapes.set(name, tensor.dims);
  fold(graph, input, trained, probed);
  pruneGraph(graph);
  return { graph, shapes, input, output, layers, trained };
}

function chooseOutput(graph: TrainGraph, options: Pick<ForwardOptions, "output" | "strip">): string {
  const name = options.output ?? graph.outputs[0];
  if (name === undefined || !graph.outputs.includes(name)) {
    throw new FieldloopError(
      "invalid_argument",
      `Prepare training: output "${name}" is not one of [${graph.outputs.join(", ")}]`,
    );
  }
  if (options.strip === "none") return name;
  // Gradients through a saturated Softmax lose three digits; logits lose none.
  const producers = producersOf(graph.nodes);
  let at = name;
  for (let node = producers.get(at); node; node = producers.get(at)) {
    if (STRIPPED_OPS[options.strip].includes(node.op)) return node.inputs[0]!;
    if (node.op !== "Identity" && node.op !== "Dropout") break;
    at = node.inputs[0]!;
  }
  return name;
}

function fixBatch(graph: TrainGraph, batch: number): GraphInput {
  const producers = producersOf(graph.nodes);
  const used = graph.inputs.filter((input) => graph.nodes.some((node) => node.inputs.includes(input.name)));
  const [first] = used;
  if (used.length !== 1 || !first || first.type !== "float32" || first.dims.length === 0) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Prepare training: one float32 input is needed, the output depends on [${used.map((input) => `${input.name}: ${input.type}`).join(", ")}]`,
    );
  }
  const [declared = -1, ...rest] = first.dims;
  if (rest.some((dim) => dim < 0)) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Prepare training: input "${first.name}" has shape [${first.dims.join()}]; only the batch dimension may be open`,
    );
  }
  const input: GraphInput = { ...first, dims: [batch, ...rest] };
  graph.inputs.splice(0, graph.inputs.length, input);
  if (declared === 1 && batch !== 1) rewriteBakedBatch(graph, input.name, batch, producers);
  return input;
}

/**
 * A model exported for batch 1 has the 1 in the constants of its Reshape nodes too. A shape that is whole grows by the
 * batch in its first dimension (the row-major blocks of each row stay together: also right for the channel shuffle's
 * [channels / 2, 2, pixels]); one with an open dimension has its leading 1 replaced.
 */
function rewriteBakedBatch(
  graph: TrainGraph,
  input: string,
  batch: number,
  producers: ReadonlyMap<string, TrainGraph["nodes"][number]>,
): void {
  const dynamic = dependents(graph.nodes, [input]);
  for (const node of graph.nodes) {
    const shape = node.op === "Reshape" ? node.inputs[1]! : "";
    const constant = graph.constants.get(shape);
    if (!constant || producers.has(shape) || !dynamic.has(node.inputs[0]!)) continue;
    const dims = numbersOf(constant);
    const open = dims.slice(1).some((dim) => dim < 1);
    if (dims[0]! < 1 || (open && dims[0] !== 1)) continue;
    const rewritten = `training/${node.name}/${node.outputs[0]}/shape`;
    graph.constants.set(rewritten, intTensor([dims[0]! * batch, ...dims.slice(1)]));
    node.inputs[1] = rewritten;
  }
}

/** Runs the graph once on zeros with every value as an output: exact shapes, and values of what is constant. */
async function probe(
  graph: TrainGraph,
  input: GraphInput,
  options: PrepareOptions,
): Promise<Map<string, Tensor>> {
  const names = graph.nodes.flatMap((node) => node.outputs.filter((output) => output !== ""));
  const session = await options.backend.openSession(graphToBytes({ ...graph, outputs: names }), {
    threadCount: options.threadCount,
    executionProvider: options.executionProvider,
    graphOptimization: "disabled",
    memoryPattern: false,
  });
  try {
    const zeros: Tensor = { type: "float32", dims: input.dims, data: new Float32Array(sizeOf(input.dims)) };
    return new Map(Object.entries(await session.run({ [input.name]: zeros }, names)));
  } finally {
    await session.release();
  }
}

/** Turns values that depend neither on the input nor on a trained tensor into constants; shapes are static, so Shape counts. */
function fold(
  graph: TrainGraph,
  input: GraphInput,
  trained: readonly string[],
  probed: ReadonlyMap<string, Tensor>,
): void {
  const withoutShapes = graph.nodes.filter((node) => node.op !== "Shape" && node.op !== "Size");
  const dynamic = dependents(withoutShapes, [input.name, ...trained]);
  const kept = graph.nodes.filter((node) => node.outputs.some((output) => dynamic.has(output)));
  for (const node of graph.nodes) {
    if (kept.includes(node)) continue;
    for (const output of node.outputs) if (output) graph.constants.set(output, probed.get(output)!);
  }
  graph.nodes = kept;
}
