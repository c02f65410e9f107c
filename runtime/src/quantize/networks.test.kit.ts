import type { Backend } from "../backend.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import type { Feeds } from "./types.js";

/** Deviates from a seed, so that every figure of a test repeats. */
export function normals(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

export function drawn(dims: readonly number[], normal: () => number, deviation = 1): Float32Array {
  return Float32Array.from(
    { length: dims.reduce((product, size) => product * size, 1) },
    () => normal() * deviation,
  );
}

/** A chain of Conv and Relu on [1, 3, size, size] with global pooling and a product at its end. */
export function convNet(seed: number, size = 16, widths: readonly number[] = [16, 16, 24]): Uint8Array {
  const normal = normals(seed);
  const graph = new GraphBuilder();
  const weight = (dims: number[], deviation: number) =>
    graph.initializer(float32Tensor("", dims, drawn(dims, normal, deviation)));
  let at = graph.input("image", "float32", [1, 3, size, size]);
  let channels = 3;
  for (const width of widths) {
    const operands = [
      at,
      weight([width, channels, 3, 3], Math.sqrt(2 / (9 * channels))),
      weight([width], 0.1),
    ];
    at = graph.node("Conv", operands, { pads: { ints: [1, 1, 1, 1] } })[0]!;
    at = graph.node("Relu", [at])[0]!;
    channels = width;
  }
  at = graph.node("Flatten", graph.node("GlobalAveragePool", [at]))[0]!;
  graph.node("Gemm", [at, weight([6, channels], 0.4), weight([6], 0.1)], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [1, 6]);
  return encodeModel(graph.build({ opset: 17 }));
}

/** Two layers of products: MatMul, Relu, Gemm with alpha and beta; `inner` need not be a multiple of a block. */
export function productNet(seed: number, inner = 72): Uint8Array {
  const normal = normals(seed);
  const graph = new GraphBuilder();
  const weight = (dims: number[], deviation: number) =>
    graph.initializer(float32Tensor("", dims, drawn(dims, normal, deviation)));
  const first = graph.node("MatMul", [graph.input("x", "float32", ["n", inner]), weight([inner, 40], 0.2)]);
  const hidden = graph.node("Relu", first)[0]!;
  const scaling = { transB: { i: 1 }, alpha: { f: 0.5 }, beta: { f: 2 } } as const;
  graph.node("Gemm", [hidden, weight([30, 40], 0.3), weight([30], 0.5)], scaling, ["y"]);
  graph.output("y", "float32", ["n", 30]);
  return encodeModel(graph.build({ opset: 17 }));
}

/** A recurrent layer [steps, batch, features] of the operator `LSTM` or `GRU`, both directions. */
export function recurrentNet(seed: number, operator: "LSTM" | "GRU"): Uint8Array {
  const normal = normals(seed);
  const graph = new GraphBuilder();
  const gates = operator === "LSTM" ? 4 : 3;
  const [features, hidden] = [12, 20];
  const weight = (dims: number[], deviation: number) =>
    graph.initializer(float32Tensor("", dims, drawn(dims, normal, deviation)));
  const operands = [
    graph.input("x", "float32", [6, 2, features]),
    weight([2, gates * hidden, features], 0.3),
    weight([2, gates * hidden, hidden], 0.3),
    weight([2, 2 * gates * hidden], 0.1),
  ];
  const attributes = { hidden_size: { i: hidden }, direction: { s: "bidirectional" } };
  const [sequence] = graph.node(operator, operands, attributes, ["y", "last"]);
  graph.output(sequence!, "float32", [6, 2, 2, hidden]);
  graph.output("last", "float32", [2, 2, hidden]);
  return encodeModel(graph.build({ opset: 17 }));
}

export function feedsFor(name: string, dims: readonly number[], count: number, seed: number): Feeds[] {
  const normal = normals(seed);
  return Array.from({ length: count }, () => ({
    [name]: { type: "float32" as const, dims: [...dims], data: drawn(dims, normal) },
  }));
}

/** Outputs of a model on one input, each as floats. */
export async function outputsOf(
  bytes: Uint8Array,
  feeds: Feeds,
  backend: Backend = ortNode,
): Promise<Record<string, Float32Array>> {
  const session = await backend.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
  try {
    const results = await session.run(feeds);
    return Object.fromEntries(
      Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]),
    );
  } finally {
    await session.release();
  }
}

/** Root mean square difference over root mean square. */
export function relativeError(reference: Float32Array, test: Float32Array): number {
  let [error, power] = [0, 0];
  reference.forEach((value, at) => {
    error += (value - test[at]!) ** 2;
    power += value ** 2;
  });
  return Math.sqrt(error / power);
}
