import type { Tensor } from "../../backend.js";
import type { Random } from "../../simulate/random.js";
import { makeNode, type GradientCase } from "../gradient-check.test.kit.js";
import { floatTensor, intTensor, sizeOf, type Attribute } from "../graph.js";

/** Draws one case of a rule. */
export type MakeCase = (random: Random) => GradientCase;

export const between = (random: Random, low: number, high: number) => low + random.int(high - low + 1);
export const pick = <T>(random: Random, list: readonly T[]): T => list[random.int(list.length)]!;

export function normal(random: Random, dims: readonly number[]): Tensor {
  return floatTensor(
    dims,
    Float32Array.from({ length: sizeOf(dims) }, () => random.normal()),
  );
}

export function positive(random: Random, dims: readonly number[]): Tensor {
  return floatTensor(
    dims,
    Float32Array.from({ length: sizeOf(dims) }, () => random.range(0.5, 2)),
  );
}

/** Numbers that keep a distance from points where a function has no derivative. */
export function awayFrom(random: Random, dims: readonly number[], kinks: readonly number[]): Tensor {
  const draw = () => {
    for (;;) {
      const value = 2 * random.normal();
      if (kinks.every((kink) => Math.abs(value - kink) > 0.02)) return value;
    }
  };
  return floatTensor(dims, Float32Array.from({ length: sizeOf(dims) }, draw));
}

/** Distinct numbers, at least 0.01 apart: no ties for a maximum. */
export function distinct(random: Random, dims: readonly number[]): Tensor {
  const order = random.shuffle(Float32Array.from({ length: sizeOf(dims) }, (_, k) => k * 0.01));
  return floatTensor(dims, order);
}

export function someDims(random: Random): number[] {
  return Array.from({ length: between(random, 1, 4) }, () => between(random, 1, 4));
}

export function unaryCase(
  op: string,
  values: (random: Random, dims: readonly number[]) => Tensor,
  attributes = {},
): MakeCase {
  return (random) => ({
    nodes: [makeNode(op, ["x"], attributes)],
    values: { x: values(random, someDims(random)) },
    wanted: ["x"],
  });
}

/** Two shapes that broadcast to one. */
export function broadcastPair(random: Random): [number[], number[]] {
  const whole = someDims(random);
  const thin = whole.map((dim) => (random.uniform() < 0.4 ? 1 : dim)).slice(random.int(whole.length));
  const other = whole.map((dim) => (random.uniform() < 0.2 ? 1 : dim));
  return random.uniform() < 0.5 ? [other, thin] : [thin, other];
}

export function binaryCase(op: string, right: (random: Random, dims: readonly number[]) => Tensor): MakeCase {
  return (random) => {
    const [a, b] = broadcastPair(random);
    return {
      nodes: [makeNode(op, ["a", "b"])],
      values: { a: normal(random, a), b: right(random, b) },
      wanted: ["a", "b"],
    };
  };
}

interface ConvShape {
  readonly channels: number;
  readonly outputs: number;
  readonly groups: number;
  readonly rank?: number;
  readonly kernel?: number;
  readonly strideMax?: number;
  readonly padMax?: number;
}

export function convCase(shape: (random: Random) => ConvShape): MakeCase {
  return (random) => {
    const { channels, outputs, groups, rank = 2, kernel, strideMax = 3, padMax = 2 } = shape(random);
    const axes = Array.from({ length: rank });
    const size = axes.map(() => kernel ?? between(random, 1, 3));
    const spatial = size.map((k) => between(random, k * 2, k * 2 + 3));
    const attributes = {
      kernel_shape: { ints: size },
      strides: { ints: axes.map(() => between(random, 1, strideMax)) },
      dilations: { ints: axes.map(() => (kernel === 1 ? 1 : between(random, 1, 2))) },
      pads: { ints: [...axes, ...axes].map(() => random.int(padMax + 1)) },
      group: { i: groups },
    };
    return {
      nodes: [makeNode("Conv", ["x", "w", "b"], attributes)],
      values: {
        x: normal(random, [between(random, 1, 2), channels, ...spatial]),
        w: normal(random, [outputs, channels / groups, ...size]),
        b: normal(random, [outputs]),
      },
      wanted: ["x", "w", "b"],
    };
  };
}

export function poolCase(op: string, disjoint: boolean): MakeCase {
  return (random) => {
    const rank = between(random, 1, 2);
    const axes = Array.from({ length: rank });
    const kernel = axes.map(() => between(random, 2, 3));
    const spatial = kernel.map((k) => between(random, 2 * k, 2 * k + 2));
    const attributes: Record<string, Attribute> = { kernel_shape: { ints: kernel } };
    attributes["strides"] = { ints: disjoint ? kernel : axes.map(() => between(random, 1, 2)) };
    if (!disjoint) attributes["pads"] = { ints: [...axes, ...axes].map(() => random.int(2)) };
    if (op === "AveragePool" && !disjoint) attributes["count_include_pad"] = { i: random.int(2) };
    return {
      nodes: [makeNode(op, ["x"], attributes)],
      values: { x: distinct(random, [between(random, 1, 2), between(random, 1, 3), ...spatial]) },
      wanted: ["x"],
    };
  };
}

export function gemmCase(random: Random): GradientCase {
  const [m, k, n] = [between(random, 1, 5), between(random, 1, 5), between(random, 1, 5)];
  const [transA, transB] = [random.int(2), random.int(2)];
  return {
    nodes: [
      makeNode("Gemm", ["a", "b", "c"], {
        transA: { i: transA },
        transB: { i: transB },
        alpha: { f: pick(random, [1, 0.5, -2]) },
        beta: { f: pick(random, [1, 0.25]) },
      }),
    ],
    values: {
      a: normal(random, transA ? [k, m] : [m, k]),
      b: normal(random, transB ? [n, k] : [k, n]),
      c: normal(random, pick(random, [[n], [m, n], [1, n], [m, 1]])),
    },
    wanted: ["a", "b", "c"],
  };
}

export function matMulCase(random: Random): GradientCase {
  const [m, k, n] = [between(random, 1, 4), between(random, 1, 4), between(random, 1, 4)];
  const [p, q] = [between(random, 1, 3), between(random, 1, 3)];
  const [a, b] = pick(random, [
    [
      [m, k],
      [k, n],
    ],
    [
      [p, m, k],
      [k, n],
    ],
    [
      [m, k],
      [p, k, n],
    ],
    [
      [p, q, m, k],
      [1, q, k, n],
    ],
    [
      [p, q, m, k],
      [q, k, n],
    ],
  ] as const);
  return {
    nodes: [makeNode("MatMul", ["a", "b"])],
    values: { a: normal(random, a), b: normal(random, b) },
    wanted: ["a", "b"],
  };
}

export function convTransposeCase(random: Random): GradientCase {
  const groups = pick(random, [1, 1, 2]);
  const [channels, outputs] = [groups * between(random, 1, 3), groups * between(random, 1, 3)];
  const kernel = [between(random, 2, 3), between(random, 2, 3)];
  const strides = [between(random, 1, 2), between(random, 1, 2)];
  return {
    nodes: [
      makeNode("ConvTranspose", ["x", "w", "b"], {
        kernel_shape: { ints: kernel },
        strides: { ints: strides },
        pads: { ints: [random.int(2), random.int(2), random.int(2), random.int(2)] },
        output_padding: { ints: strides.map((stride) => random.int(stride)) },
        group: { i: groups },
      }),
    ],
    values: {
      x: normal(random, [between(random, 1, 2), channels, between(random, 2, 4), between(random, 2, 4)]),
      w: normal(random, [channels, outputs / groups, ...kernel]),
      b: normal(random, [outputs]),
    },
    wanted: ["x", "w", "b"],
  };
}

/** Axes given as a constant input: Squeeze, Unsqueeze, ReduceMean, ... */
export function axesCase(
  op: string,
  dims: (random: Random) => readonly number[],
  axes: (random: Random) => readonly number[],
): MakeCase {
  return (random) => {
    const keep: Record<string, Attribute> = op.startsWith("Reduce") ? { keepdims: { i: random.int(2) } } : {};
    return {
      nodes: [makeNode(op, ["x", "axes"], keep)],
      values: { x: normal(random, dims(random)), axes: intTensor(axes(random)) },
      wanted: ["x"],
    };
  };
}

export const rank3 = (random: Random) => [
  between(random, 1, 4),
  between(random, 1, 4),
  between(random, 1, 4),
];
export const image = (random: Random) => [
  between(random, 1, 2),
  between(random, 1, 3),
  between(random, 2, 4),
  between(random, 2, 4),
];
