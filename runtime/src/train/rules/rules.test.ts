import { describe, expect, it } from "vitest";
import { Random, hashText } from "../../simulate/random.js";
import { checkGradient, makeNode, type GradientCase } from "../gradient-check.test.kit.js";
import { floatTensor, intTensor } from "../graph.js";
import {
  type MakeCase,
  between,
  pick,
  normal,
  positive,
  awayFrom,
  someDims,
  unaryCase,
  binaryCase,
  convCase,
  poolCase,
  gemmCase,
  matMulCase,
  convTransposeCase,
  axesCase,
  rank3,
  image,
} from "./cases.test.kit.js";
import { TRAINABLE_OPS } from "./table.js";

/** Bar of the design: every rule within this of finite differences in double precision. */
const ERROR_MAX = 1e-6;
const FORWARD_ERROR_MAX = 2e-6;
const SEEDS = [1, 2, 3, 4, 5];

const CASES: Readonly<Record<string, MakeCase>> = {
  Abs: unaryCase("Abs", (random, dims) => awayFrom(random, dims, [0])),
  Add: binaryCase("Add", normal),
  "AveragePool tiling": poolCase("AveragePool", true),
  "AveragePool overlapping": poolCase("AveragePool", false),
  BatchNormalization: (random) => {
    const x = image(random);
    const channel = [x[1]!];
    return {
      nodes: [
        makeNode("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], { epsilon: { f: 1e-3 } }),
      ],
      values: {
        x: normal(random, x),
        scale: normal(random, channel),
        bias: normal(random, channel),
        mean: normal(random, channel),
        variance: positive(random, channel),
      },
      wanted: ["x", "scale", "bias"],
    };
  },
  Clip: (random) => ({
    nodes: [makeNode("Clip", ["x", random.int(3) === 0 ? "" : "low", random.int(3) === 0 ? "" : "high"])],
    values: {
      x: awayFrom(random, someDims(random), [-1, 1.5]),
      low: floatTensor([], [-1]),
      high: floatTensor([], [1.5]),
    },
    wanted: ["x"],
  }),
  Concat: (random) => {
    const dims = image(random);
    const axis = random.int(4);
    const part = (length: number) =>
      normal(
        random,
        dims.map((dim, at) => (at === axis ? length : dim)),
      );
    return {
      nodes: [makeNode("Concat", ["a", "b", "c"], { axis: { i: random.int(2) ? axis : axis - 4 } })],
      values: { a: part(2), b: part(1), c: part(3) },
      wanted: ["a", "c"],
    };
  },
  "Conv few channels": convCase((random) => ({
    channels: between(random, 1, 7),
    outputs: between(random, 1, 4),
    groups: 1,
  })),
  "Conv many channels": convCase((random) => ({
    channels: between(random, 8, 10),
    outputs: between(random, 1, 3),
    groups: 1,
  })),
  "Conv 1-D": convCase((random) => ({ channels: pick(random, [2, 9]), outputs: 3, groups: 1, rank: 1 })),
  "Conv pointwise": convCase(() => ({
    channels: 5,
    outputs: 4,
    groups: 1,
    kernel: 1,
    strideMax: 1,
    padMax: 0,
  })),
  "Conv wide, stride 1": convCase(() => ({
    channels: 64,
    outputs: 2,
    groups: 1,
    kernel: 2,
    strideMax: 1,
    padMax: 1,
  })),
  "Conv grouped": convCase((random) => ({ channels: 6, outputs: 2 * between(random, 1, 3), groups: 2 })),
  "Conv depthwise": convCase(() => ({ channels: 4, outputs: 4, groups: 4 })),
  "Conv grouped, stride 1": convCase(() => ({ channels: 6, outputs: 4, groups: 2, kernel: 3, strideMax: 1 })),
  "Conv depthwise, stride 1": convCase(() => ({
    channels: 3,
    outputs: 6,
    groups: 3,
    kernel: 2,
    strideMax: 1,
    padMax: 1,
  })),
  "Conv same padding": (random) => ({
    nodes: [
      makeNode("Conv", ["x", "w"], {
        auto_pad: { s: pick(random, ["SAME_UPPER", "SAME_LOWER", "VALID"]) },
        strides: { ints: [between(random, 1, 2), between(random, 1, 2)] },
        kernel_shape: { ints: [2, 3] },
      }),
    ],
    values: { x: normal(random, [2, 2, 5, 6]), w: normal(random, [3, 2, 2, 3]) },
    wanted: ["x", "w"],
  }),
  ConvTranspose: convTransposeCase,
  Div: binaryCase("Div", positive),
  Dropout: unaryCase("Dropout", normal),
  Erf: unaryCase("Erf", normal),
  Exp: unaryCase("Exp", normal),
  Expand: (random) => {
    const dims = someDims(random);
    return {
      nodes: [makeNode("Expand", ["x", "shape"])],
      values: {
        x: normal(
          random,
          dims.map((dim) => (random.int(2) ? 1 : dim)),
        ),
        shape: intTensor([2, ...dims]),
      },
      wanted: ["x"],
    };
  },
  Flatten: (random) => ({
    nodes: [makeNode("Flatten", ["x"], { axis: { i: random.int(4) } })],
    values: { x: normal(random, image(random)) },
    wanted: ["x"],
  }),
  Gather: (random) => ({
    nodes: [makeNode("Gather", ["x", "indices"])],
    values: {
      x: normal(random, [5, between(random, 1, 3)]),
      indices: intTensor([1, 4, 1, random.int(5), -1, 0], [2, 3]),
    },
    wanted: ["x"],
  }),
  Gelu: unaryCase("Gelu", normal),
  Gemm: gemmCase,
  GlobalAveragePool: (random) => ({
    nodes: [makeNode("GlobalAveragePool", ["x"])],
    values: { x: normal(random, image(random)) },
    wanted: ["x"],
  }),
  HardSigmoid: unaryCase("HardSigmoid", (random, dims) => awayFrom(random, dims, [-2.5, 2.5])),
  HardSwish: unaryCase("HardSwish", (random, dims) => awayFrom(random, dims, [-3, 3])),
  Identity: unaryCase("Identity", normal),
  LayerNormalization: (random) => {
    const x = [between(random, 1, 3), between(random, 2, 3), between(random, 3, 5)];
    const axis = pick(random, [-1, 1, 2]);
    const tail = x.slice(axis === -1 ? 2 : axis);
    return {
      nodes: [makeNode("LayerNormalization", ["x", "scale", "bias"], { axis: { i: axis } })],
      values: { x: normal(random, x), scale: normal(random, tail), bias: normal(random, tail) },
      wanted: ["x", "scale", "bias"],
    };
  },
  LeakyRelu: unaryCase("LeakyRelu", (random, dims) => awayFrom(random, dims, [0]), { alpha: { f: 0.1 } }),
  Log: unaryCase("Log", positive),
  LogSoftmax: (random) => ({
    nodes: [makeNode("LogSoftmax", ["x"], { axis: { i: pick(random, [-1, 0, 1, 2]) } })],
    values: { x: normal(random, rank3(random)) },
    wanted: ["x"],
  }),
  MatMul: matMulCase,
  "MaxPool tiling": poolCase("MaxPool", true),
  "MaxPool overlapping": poolCase("MaxPool", false),
  Mul: binaryCase("Mul", normal),
  Neg: unaryCase("Neg", normal),
  PRelu: (random) => {
    const x = image(random);
    return {
      nodes: [makeNode("PRelu", ["x", "slope"])],
      values: { x: awayFrom(random, x, [0]), slope: normal(random, [x[1]!, 1, 1]) },
      wanted: ["x", "slope"],
    };
  },
  Pad: (random) => ({
    nodes: [makeNode("Pad", ["x", "pads"])],
    values: { x: normal(random, [3, 4]), pads: intTensor([1, -1, random.int(3), 2]) },
    wanted: ["x"],
  }),
  Pow: (random) => ({
    nodes: [makeNode("Pow", ["x", "power"])],
    values: {
      x: positive(random, someDims(random)),
      power: floatTensor([], [pick(random, [2, 3, 0.5, -1])]),
    },
    wanted: ["x"],
  }),
  ReduceMean: axesCase("ReduceMean", rank3, (random) => pick(random, [[0], [1, 2], [-1], [0, 1, 2]])),
  ReduceSum: axesCase("ReduceSum", rank3, (random) => pick(random, [[0], [1, 2], [-1], [0, 1, 2]])),
  Relu: unaryCase("Relu", (random, dims) => awayFrom(random, dims, [0])),
  Reshape: (random) => ({
    nodes: [makeNode("Reshape", ["x", "shape"])],
    values: { x: normal(random, [2, 6]), shape: intTensor(pick(random, [[-1], [3, 4], [0, 2, 3], [1, 12]])) },
    wanted: ["x"],
  }),
  Resize: (random) => ({
    nodes: [
      makeNode("Resize", ["x", "", "scales"], {
        mode: { s: "nearest" },
        coordinate_transformation_mode: { s: pick(random, ["asymmetric", "half_pixel"]) },
        nearest_mode: { s: "round_prefer_floor" },
      }),
    ],
    values: { x: normal(random, image(random)), scales: floatTensor([4], [1, 1, between(random, 1, 2), 2]) },
    wanted: ["x"],
  }),
  Sigmoid: unaryCase("Sigmoid", normal),
  Slice: (random) => ({
    nodes: [makeNode("Slice", ["x", "starts", "ends", "axes"])],
    values: {
      x: normal(random, [5, 4, 3]),
      starts: intTensor([random.int(3), -2]),
      ends: intTensor([4, Number.MAX_SAFE_INTEGER]),
      axes: intTensor([0, pick(random, [1, -1])]),
    },
    wanted: ["x"],
  }),
  Softmax: (random) => ({
    nodes: [makeNode("Softmax", ["x"], { axis: { i: pick(random, [-1, 0, 1, 2]) } })],
    values: { x: normal(random, [between(random, 2, 4), between(random, 2, 4), between(random, 2, 4)]) },
    wanted: ["x"],
  }),
  Softplus: unaryCase("Softplus", normal),
  Split: (random) => ({
    nodes: [makeNode("Split", ["x", "sizes"], { axis: { i: 1 } }, ["y", "z", "unused"])],
    values: { x: normal(random, [2, 6, between(random, 1, 3)]), sizes: intTensor([1, 3, 2]) },
    wanted: ["x"],
    outputs: ["y", "z"],
  }),
  Sqrt: unaryCase("Sqrt", positive),
  Squeeze: axesCase(
    "Squeeze",
    (random) => [between(random, 1, 4), 1, 3, 1],
    () => [1, -1],
  ),
  Sub: binaryCase("Sub", normal),
  Tanh: unaryCase("Tanh", normal),
  Transpose: (random) => ({
    nodes: [
      makeNode(
        "Transpose",
        ["x"],
        random.int(4) === 0
          ? {}
          : {
              perm: {
                ints: pick(random, [
                  [0, 2, 1],
                  [2, 0, 1],
                  [1, 2, 0],
                ]),
              },
            },
      ),
    ],
    values: { x: normal(random, rank3(random)) },
    wanted: ["x"],
  }),
  Unsqueeze: axesCase("Unsqueeze", rank3, () => [0, 2]),
  "weight used twice": (random) => ({
    nodes: [
      makeNode("MatMul", ["x", "w"], {}, ["h"]),
      makeNode("Tanh", ["h"], {}, ["t"]),
      makeNode("MatMul", ["t", "w"], {}, ["u"]),
      makeNode("Add", ["u", "t"]),
    ],
    values: { x: normal(random, [3, 4]), w: normal(random, [4, 4]) },
    wanted: ["x", "w"],
  }),
  "weight behind Reshape and Transpose": (random) => ({
    nodes: [
      makeNode("Reshape", ["w", "shape"], {}, ["r"]),
      makeNode("Transpose", ["r"], { perm: { ints: [1, 0] } }, ["t"]),
      makeNode("MatMul", ["x", "t"]),
    ],
    values: { x: normal(random, [3, 6]), w: normal(random, [4, 2, 3]), shape: intTensor([4, 6]) },
    wanted: ["w"],
  }),
};

describe("gradient rules against central differences in float64", () => {
  const worst: Record<string, number> = {};

  it.each(Object.keys(CASES))("%s", async (name) => {
    for (const seed of SEEDS) {
      const random = new Random(seed, hashText(name));
      const made = CASES[name]!(random);
      const errors = await checkGradient(made, random);
      const label = `${name}, seed ${seed}`;
      expect(errors.forward, `${label}: forward error`).toBeLessThanOrEqual(FORWARD_ERROR_MAX);
      expect(errors.gradient, `${label}: gradient error`).toBeLessThanOrEqual(ERROR_MAX);
      worst[name] = Math.max(worst[name] ?? 0, errors.gradient);
    }
  });

  it("covers every operator of the table", () => {
    const covered = new Set(Object.keys(CASES).map((name) => name.split(" ")[0]));
    expect(TRAINABLE_OPS.filter((op) => !covered.has(op))).toEqual([]);
    const [name, error] = Object.entries(worst).sort((a, b) => b[1] - a[1])[0]!;
    console.log(
      `${Object.keys(CASES).length} rules, seeds ${SEEDS.join(" ")}: worst ${error.toExponential(1)} (${name})`,
    );
  });

  it("shares the gradient between equal maxima", async () => {
    const x = floatTensor([1, 1, 2, 4], [3, 3, 1, 2, 3, 3, 0, 2]);
    const made: GradientCase = {
      nodes: [makeNode("MaxPool", ["x"], { kernel_shape: { ints: [2, 2] }, strides: { ints: [2, 2] } })],
      values: { x },
      wanted: ["x"],
    };
    const random = new Random(1);
    const { gradients, weights } = await checkGradient(made, random);
    const [left, right] = weights["y"]!;
    const quarter = left! / 4;
    expect(gradients["x"]![2]).toBe(0);
    expect([0, 1, 4, 5].map((k) => gradients["x"]![k])).toEqual(
      [quarter, quarter, quarter, quarter].map(Math.fround),
    );
    expect(gradients["x"]![3]! + gradients["x"]![7]!).toBeCloseTo(right!, 6);
  });
});
