import type { Tensor } from "../backend.js";
import { ortNode } from "../node/ort.js";
import { Emitter } from "./emitter.js";
import type { Tensor64 } from "./float64-tensor.js";
import { evaluate64 } from "./float64.js";
import {
  floatTensor,
  numbersOf,
  pruneGraph,
  sizeOf,
  type Attribute,
  type TrainGraph,
  type TrainNode,
} from "./graph.js";
import { graphToBytes } from "./onnx-form.js";
import type { Random } from "../simulate/random.js";
import { appendGradients } from "./tape.js";

export interface GradientCase {
  readonly nodes: readonly TrainNode[];
  readonly values: Readonly<Record<string, Tensor>>;
  /** Values whose gradient is checked. */
  readonly wanted: readonly string[];
  /** Output that the loss weighs with random numbers; "y" when absent. */
  readonly outputs?: readonly string[];
}

export interface GradientErrors {
  /** max |g - fd| / max |fd| over all elements of all wanted tensors, per tensor. */
  readonly gradient: number;
  /** The same between the backend's forward values and the reference's. */
  readonly forward: number;
  /** What the backend gave, by wanted name. */
  readonly gradients: Readonly<Record<string, Float32Array>>;
  /** The random weights of the loss, by output name. */
  readonly weights: Readonly<Record<string, Float32Array>>;
}

const STEP = 1e-5;
const ELEMENTS_MAX = 150;
const SESSION = { threadCount: 1, executionProvider: "cpu", graphOptimization: "extended" } as const;

export function makeNode(
  op: string,
  inputs: readonly string[],
  attributes: Record<string, Attribute> = {},
  outputs: readonly string[] = ["y"],
): TrainNode {
  return { op, name: `${op}_${outputs[0]}`, inputs: [...inputs], outputs: [...outputs], attributes };
}

/** Compares the gradients of the ONNX graph, run by ONNX Runtime, with central differences in double precision. */
export async function checkGradient(tested: GradientCase, random: Random): Promise<GradientErrors> {
  const { nodes, values, wanted, outputs = ["y"] } = tested;
  const inputs = Object.entries(values).filter(([name]) => wanted.includes(name));
  const graph: TrainGraph = {
    opset: 20,
    inputs: inputs.map(([name, tensor]) => ({ name, type: tensor.type, dims: tensor.dims })),
    outputs: nodes.flatMap((node) => node.outputs),
    constants: new Map(Object.entries(values).filter(([name]) => !wanted.includes(name))),
    initializers: new Set(),
    nodes: nodes.map((node) => ({ ...node, inputs: [...node.inputs], outputs: [...node.outputs] })),
  };
  const feeds = Object.fromEntries(inputs);
  const forward = await runOnce(graph, feeds);
  const shapes = new Map<string, readonly number[]>();
  for (const [name, tensor] of [...Object.entries(values), ...Object.entries(forward)])
    shapes.set(name, tensor.dims);
  const reference = { nodes: [...graph.nodes], constants: new Map(graph.constants) };

  const emit = new Emitter(graph, shapes);
  const weights = new Map(
    outputs.map((name) => {
      const dims = shapes.get(name)!;
      return [
        name,
        floatTensor(
          dims,
          Float32Array.from({ length: sizeOf(dims) }, () => random.range(-1, 1)),
        ),
      ];
    }),
  );
  const seeds = new Map([...weights].map(([name, tensor]) => [name, emit.constant(tensor)]));
  const gradients = appendGradients([...graph.nodes], emit, seeds, wanted);
  const backward: TrainGraph = { ...graph, outputs: wanted.map((name) => gradients.get(name)!.name) };
  pruneGraph(backward);
  const results = await runOnce(backward, feeds);

  const base = new Map(Object.entries(values).map(([name, tensor]) => [name, to64(tensor)]));
  const forward64 = evaluate64(reference, shapes, base);
  const loss = (at: ReadonlyMap<string, Tensor64>) => {
    const found = evaluate64(reference, shapes, at);
    let sum = 0;
    for (const [name, tensor] of weights) {
      found.get(name)!.data.forEach((value, k) => (sum += value * (tensor.data as Float32Array)[k]!));
    }
    return sum;
  };
  const found = Object.fromEntries(
    wanted.map((name) => [name, results[gradients.get(name)!.name]!.data as Float32Array]),
  );
  const errors = wanted.map((name) => {
    const elements = sampleElements(found[name]!.length, random);
    const given = Float64Array.from(elements, (k) => found[name]![k]!);
    return relativeError(given, centralDifferences(base, name, elements, loss));
  });
  const forwardErrors = outputs.map((name) =>
    relativeError(forward[name]!.data as Float32Array, forward64.get(name)!.data),
  );
  return {
    gradient: Math.max(...errors),
    forward: Math.max(...forwardErrors),
    gradients: found,
    weights: Object.fromEntries([...weights].map(([name, tensor]) => [name, tensor.data as Float32Array])),
  };
}

/** All elements of a small tensor, a random sample of a large one. */
function sampleElements(count: number, random: Random): Uint32Array {
  const all = Uint32Array.from({ length: count }, (_, index) => index);
  return count <= ELEMENTS_MAX ? all : random.shuffle(all).slice(0, ELEMENTS_MAX);
}

function centralDifferences(
  base: ReadonlyMap<string, Tensor64>,
  name: string,
  elements: Uint32Array,
  loss: (at: ReadonlyMap<string, Tensor64>) => number,
): Float64Array {
  const { dims, data } = base.get(name)!;
  return Float64Array.from(elements, (k) => {
    const value = data[k]!;
    const moved = data.slice();
    const at = new Map([...base, [name, { dims, data: moved }]]);
    moved[k] = value + STEP;
    const above = loss(at);
    moved[k] = value - STEP;
    return (above - loss(at)) / (2 * STEP);
  });
}

/** max |a - b| / max |b|. */
export function relativeError(a: ArrayLike<number>, b: Float64Array): number {
  let worst = 0;
  let largest = 0;
  b.forEach((value, k) => {
    worst = Math.max(worst, Math.abs(a[k]! - value));
    largest = Math.max(largest, Math.abs(value));
  });
  return a.length === b.length ? worst / Math.max(largest, 1e-12) : Infinity;
}

function to64(tensor: Tensor): Tensor64 {
  return { dims: tensor.dims, data: Float64Array.from(numbersOf(tensor)) };
}

async function runOnce(graph: TrainGraph, feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> {
  const session = await ortNode.openSession(graphToBytes(graph), SESSION);
  try {
    const used = Object.fromEntries(
      Object.entries(feeds).filter(([name]) => session.inputs.some((i) => i.name === name)),
    );
    return await session.run(used);
  } finally {
    await session.release();
  }
}
