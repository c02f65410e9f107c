import { expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor, int64Tensor } from "../onnx/tensor.js";
import { quantizeStatic } from "./quantize.js";
import type { Feeds } from "./types.js";

const SEEDS = Array.from({ length: 24 }, (_, index) => index + 1);

/** Draws a graph on tensors [2, 4, 8, 8] from a seed: shared, dead and branching values, outputs in the middle. */
class RandomGraph {
  readonly #graph = new GraphBuilder();
  readonly #outputs = new Set<string>();
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  build(): Uint8Array {
    const live = [this.#graph.input("x", "float32", [2, 4, 8, 8])];
    for (let count = 4 + this.#below(10); count > 0; count--) {
      const a = live[this.#below(live.length)]!;
      const b = live[this.#below(live.length)]!;
      if (a !== "x" && this.#below(12) === 0) this.#outputs.add(a);
      live.push(this.#step(a, b));
      if (live.length > 4) live.splice(1, 1);
    }
    const last = live[live.length - 1]!;
    if (this.#below(2) === 0) {
      const flat = this.#op("Flatten", [this.#op("GlobalAveragePool", [last])]);
      const scaling = { alpha: { f: 0.5 }, beta: { f: 2 } };
      this.#outputs.add(this.#op("Gemm", [flat, this.#weight([4, 5], 0.5), this.#weight([5], 0.3)], scaling));
    } else {
      this.#outputs.add(this.#op("Conv", [last, this.#weight([3, 4, 1, 1], 0.5)]));
    }
    for (const name of this.#outputs) this.#graph.output(name, "float32");
    return encodeModel(this.#graph.build({ opset: 13 }));
  }

  feeds(): Feeds {
    const data = Float32Array.from({ length: 512 }, () => this.#normal());
    return { x: { type: "float32", dims: [2, 4, 8, 8], data } };
  }

  #step(a: string, b: string): string {
    const same = { kernel_shape: { ints: [3, 3] }, pads: { ints: [1, 1, 1, 1] } };
    const channel = { axis: { i: 1 } };
    const steps: (() => string)[] = [
      () => this.#op("Conv", [a, this.#weight([4, 4, 3, 3], 0.25), this.#weight([4], 0.1)], same),
      () => this.#op("Conv", [a, this.#weight([4, 1, 3, 3], 0.4)], { ...same, group: { i: 4 } }),
      () => this.#op("Conv", [this.#op("Concat", [a, b], channel), this.#weight([4, 8, 1, 1], 0.35)]),
      () => this.#op("Relu", [a]),
      () => this.#op("Clip", [a, this.#scalar(0), this.#scalar(1.5)]),
      () => this.#op("Add", [a, b]),
      () => this.#op("Add", [a, this.#weight([4, 1, 1], 1)]),
      () => this.#op("Mul", [this.#weight([1], 1), a]),
      () => this.#op("MaxPool", [a], same),
      () => this.#op("AveragePool", [a], same),
      () => this.#op("Sigmoid", [a]),
      () => this.#op("LeakyRelu", [a], { alpha: { f: 0.1 } }),
      () => this.#op("Tanh", [a]),
      () => this.#op("Softmax", [a], { axis: { i: -1 } }),
      () => this.#op("Transpose", [a], { perm: { ints: [0, 1, 3, 2] } }),
      () => this.#op("Reshape", [this.#op("Reshape", [a, this.#shape(2, 8, 32)]), this.#shape(2, 4, 8, 8)]),
      () => this.#op("BatchNormalization", [a, ...[1, 0, 0].map(() => this.#weight([4], 0.5)), this.#ones()]),
      () => {
        const [low, high] = this.#graph.node("Split", [a, this.#shape(2, 2)], channel, 2);
        return this.#op("Concat", [high!, low!], channel);
      },
      () => {
        const scales = this.#graph.initializer(float32Tensor("", [4], [1, 1, 2, 2]));
        const wide = this.#op("Resize", [a, "", scales], { mode: { s: "linear" } });
        return this.#op("MaxPool", [wide], { kernel_shape: { ints: [2, 2] }, strides: { ints: [2, 2] } });
      },
    ];
    return steps[this.#below(steps.length)]!();
  }

  #op(opType: string, inputs: string[], attributes: Parameters<GraphBuilder["node"]>[2] = {}): string {
    return this.#graph.node(opType, inputs, attributes)[0]!;
  }

  #weight(dims: number[], scale: number): string {
    const count = dims.reduce((product, dim) => product * dim);
    const values = Float32Array.from({ length: count }, () => this.#normal() * scale);
    return this.#graph.initializer(float32Tensor("", dims, values));
  }

  #ones(): string {
    return this.#graph.initializer(float32Tensor("", [4], [1, 1, 1, 1]));
  }

  #scalar(value: number): string {
    return this.#graph.initializer(float32Tensor("", [], [value]));
  }

  #shape(...dims: number[]): string {
    return this.#graph.initializer(int64Tensor("", [dims.length], dims));
  }

  #below(limit: number): number {
    return Math.floor(this.#uniform() * limit);
  }

  #normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.#uniform())) * Math.cos(2 * Math.PI * this.#uniform());
  }

  #uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
}

test.each(SEEDS)("a graph drawn from seed %i keeps its outputs and leaves no float product", async (seed) => {
  const random = new RandomGraph(seed);
  const { report } = await quantizeStatic(random.build(), {
    backend: ortNode,
    fold: foldModel,
    calibration: Array.from({ length: 8 }, () => random.feeds()),
    activation: "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: false,
    method: { kind: "minmax" },
  });
  expect(report.kernels.float).toBe(0);
  for (const output of report.outputs) expect(output.cosine, output.name).toBeGreaterThan(0.998);
});
