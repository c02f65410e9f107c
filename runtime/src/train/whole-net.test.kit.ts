import { ortNode } from "../node/ort.js";
import type { Random } from "../simulate/random.js";
import type { Tensor64 } from "./float64-tensor.js";
import { evaluate64 } from "./float64.js";
import { floatTensor, pruneGraph, sizeOf, type TrainGraph } from "./graph.js";
import type { LossKind } from "./losses.js";
import { graphFromBytes, graphToBytes } from "./onnx-form.js";
import { prepareGraph, stripFor } from "./prepare.js";
import { StepRunner } from "./steps.js";
import { buildTrainingGraph, TARGET_INPUT, WEIGHTS_INPUT, type TrainingGraph } from "./training-graph.js";

export interface WholeNetCase {
  readonly model: Uint8Array;
  readonly output?: string;
  readonly loss: LossKind;
  readonly logitScale: number;
  readonly batch: number;
  /** Fills the inputs. */
  readonly draw: () => number;
  readonly random: Random;
  /** Noise on every weight, so that biases of 0 have a gradient worth measuring. */
  readonly jitter: number;
}

export interface WholeNetErrors {
  readonly loss: { readonly given: number; readonly reference: number };
  /** |derivative along the gradient by central differences / gradient length - 1|, per tensor, at the better step. */
  readonly tensors: Readonly<Record<string, number>>;
}

/** A ReLU gate may flip in the larger step, rounding may show in the smaller one. */
const STEPS = [1e-5, 1e-7];
const SESSION = { threadCount: 1, executionProvider: "cpu" } as const;

/** Compares the gradient of a whole network and its loss with the float64 reference, tensor by tensor along the gradient. */
export async function checkWholeNet(tested: WholeNetCase): Promise<WholeNetErrors> {
  const { model, output, loss, logitScale, batch, random } = tested;
  const prepared = await prepareGraph(model, {
    ...SESSION,
    backend: ortNode,
    batch,
    trainable: "all",
    output,
    strip: stripFor(loss),
  });
  const graph = buildTrainingGraph(prepared, loss, logitScale);
  const runner = await StepRunner.open(graph, ortNode, SESSION);
  for (const { name, offset, size } of graph.parameters) {
    const start = prepared.graph.constants.get(name)!.data as Float32Array;
    for (let k = 0; k < size; k++) runner.theta[offset + k] = start[k]! + tested.jitter * random.normal();
  }
  const inputs = Float32Array.from({ length: sizeOf(graph.inputDims) }, tested.draw);
  const targets = drawTargets(graph, loss, random);
  const weights = Float32Array.from({ length: batch }, (_, row) => (row === 0 ? 0 : 1 / (batch - 1)));
  const given = await runner.run({ inputs, targets, weights });
  const gradient = runner.gradient.slice();
  await runner.release();

  const feeds = new Map<string, Tensor64>([
    [graph.inputName, to64(graph.inputDims, inputs)],
    [TARGET_INPUT, to64([batch, graph.targetSize], targets)],
    [WEIGHTS_INPUT, to64([batch, 1], weights)],
  ]);
  for (const { name, dims, offset, size } of graph.parameters) {
    feeds.set(name, to64(dims, runner.theta.subarray(offset, offset + size)));
  }
  const lossAt = await referenceLoss(graph, feeds);
  const tensors: Record<string, number> = {};
  for (const { name, dims, offset, size } of graph.parameters) {
    const along = gradient.subarray(offset, offset + size);
    const length = Math.sqrt(along.reduce((sum, g) => sum + g * g, 0));
    const start = feeds.get(name)!.data;
    const errors = STEPS.map((step) => {
      const moved = (by: number) => ({ dims, data: start.map((w, k) => w + (by * along[k]!) / length) });
      const rise =
        lossAt(new Map([...feeds, [name, moved(step)]])) - lossAt(new Map([...feeds, [name, moved(-step)]]));
      return Math.abs(rise / (2 * step) / length - 1);
    });
    tensors[name] = Math.min(...errors);
  }
  return { loss: { given, reference: lossAt(feeds) }, tensors };
}

function drawTargets(graph: TrainingGraph, loss: LossKind, random: Random): Float32Array {
  const { batch, targetSize } = graph;
  const targets = Float32Array.from({ length: batch * targetSize }, () => random.uniform());
  for (let row = 0; loss === "cross_entropy" && row < batch; row++) {
    const part = targets.subarray(row * targetSize, (row + 1) * targetSize);
    const sum = part.reduce((total, value) => total + value, 0);
    part.forEach((value, k) => (part[k] = value / sum));
  }
  return targets;
}

/** The loss of a training graph in double precision; shapes come from one run of the backend. */
async function referenceLoss(
  graph: TrainingGraph,
  feeds: ReadonlyMap<string, Tensor64>,
): Promise<(at: ReadonlyMap<string, Tensor64>) => number> {
  const reference: TrainGraph = { ...graphFromBytes(graph.bytes), outputs: [graph.lossOutput] };
  pruneGraph(reference);
  const names = reference.nodes.flatMap((node) => node.outputs.filter((output) => output !== ""));
  const bytes = graphToBytes({ ...reference, outputs: names });
  const session = await ortNode.openSession(bytes, { ...SESSION, graphOptimization: "disabled" });
  const tensors = [...feeds].map(
    ([name, { dims, data }]) => [name, floatTensor(dims, Float32Array.from(data))] as const,
  );
  const results = await session.run(Object.fromEntries(tensors));
  await session.release();
  const shapes = new Map<string, readonly number[]>();
  for (const [name, tensor] of [...reference.constants, ...Object.entries(results), ...tensors])
    shapes.set(name, tensor.dims);
  return (at) => evaluate64(reference, shapes, at).get(graph.lossOutput)!.data[0]!;
}

function to64(dims: readonly number[], data: Float32Array): Tensor64 {
  return { dims, data: Float64Array.from(data) };
}
