import type { Backend, Session, Tensor } from "../backend.js";
import type { Batch } from "./feed.js";
import { TARGET_INPUT, WEIGHTS_INPUT, type TrainingGraph } from "./training-graph.js";

/** Runs the training graph: one call gives the loss and writes the gradients into one flat array. */
export class StepRunner {
  /** All trained tensors end to end; the graph's weight inputs are views of it. */
  readonly theta: Float32Array;
  readonly gradient: Float32Array;
  readonly #graph: TrainingGraph;
  readonly #session: Session;
  readonly #parameterFeeds: Record<string, Tensor> = {};
  readonly #fetches: readonly string[];

  private constructor(graph: TrainingGraph, session: Session) {
    this.#graph = graph;
    this.#session = session;
    this.theta = new Float32Array(graph.parameterCount);
    this.gradient = new Float32Array(graph.parameterCount);
    for (const { name, dims, offset, size } of graph.parameters) {
      this.#parameterFeeds[name] = {
        type: "float32",
        dims,
        data: this.theta.subarray(offset, offset + size),
      };
    }
    this.#fetches = [graph.lossOutput, ...graph.parameters.map((parameter) => parameter.gradientOutput)];
  }

  static async open(
    graph: TrainingGraph,
    backend: Backend,
    options: { readonly threadCount: number; readonly executionProvider: string },
  ): Promise<StepRunner> {
    const session = await backend.openSession(graph.bytes, {
      threadCount: options.threadCount,
      executionProvider: options.executionProvider,
      // "all" would insert layout changes around pooling that a graph with weights as inputs does not gain from.
      graphOptimization: "extended",
      memoryPattern: false,
    });
    return new StepRunner(graph, session);
  }

  /** Loss of one batch at the present parameters; {@link gradient} is overwritten. */
  async run(batch: Batch): Promise<number> {
    const graph = this.#graph;
    const outputs = await this.#session.run(
      {
        ...this.#parameterFeeds,
        [graph.inputName]: { type: "float32", dims: graph.inputDims, data: batch.inputs },
        [TARGET_INPUT]: { type: "float32", dims: [graph.batch, graph.targetSize], data: batch.targets },
        [WEIGHTS_INPUT]: { type: "float32", dims: [graph.batch, 1], data: batch.weights },
      },
      this.#fetches,
    );
    for (const { gradientOutput, offset } of graph.parameters) {
      this.gradient.set(outputs[gradientOutput]!.data as Float32Array, offset);
    }
    return (outputs[graph.lossOutput]!.data as Float32Array)[0]!;
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}
