import fc from "fast-check";
import { expect, test } from "vitest";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { Random } from "../simulate/random.js";
import { blockLengthFor, InputObserver, type InputStatistics } from "./input-statistics.js";
import { levelsNear, type LevelsRequest } from "./near-base.js";

const ROWS = 6;
const COLUMNS = 12;

/** Columns that vary together through a few common causes, as those of a layer do. */
function statisticsOf(random: Random, causes: number): InputStatistics {
  const loads = Float64Array.from({ length: COLUMNS * causes }, () => random.normal());
  const covariance = new Float64Array(COLUMNS * COLUMNS);
  for (let i = 0; i < COLUMNS; i++) {
    for (let j = 0; j < COLUMNS; j++) {
      for (let cause = 0; cause < causes; cause++) {
        covariance[i * COLUMNS + j]! += loads[i * causes + cause]! * loads[j * causes + cause]!;
      }
    }
  }
  const mean = Float64Array.from({ length: COLUMNS }, () => random.normal());
  return { columns: COLUMNS, groups: [{ mean, blocks: [{ begin: 0, length: COLUMNS, covariance }] }] };
}

function drawn(seed: number, changeCost: number, moves = 0.4): LevelsRequest {
  const random = new Random(seed);
  const statistics = statisticsOf(random, 3);
  const old = Int16Array.from({ length: ROWS * COLUMNS }, () => Math.round(20 * random.normal()));
  return {
    rows: ROWS,
    columns: COLUMNS,
    old,
    exact: Float64Array.from(old, (level) => level + moves * random.normal()),
    scales: Float32Array.from({ length: ROWS }, () => 0.01),
    statistics,
    levelMax: 127,
    changeCost,
    hasBias: true,
  };
}

/** Mean squared error of what the layer writes, in steps, its mean taken back by the bias. */
function errorOf({ exact, statistics }: LevelsRequest, levels: ArrayLike<number>): number {
  const [{ blocks }] = statistics.groups as [InputStatistics["groups"][number]];
  const { covariance } = blocks[0]!;
  let sum = 0;
  for (let row = 0; row < ROWS; row++) {
    for (let i = 0; i < COLUMNS; i++) {
      for (let j = 0; j < COLUMNS; j++) {
        const [a, b] = [row * COLUMNS + i, row * COLUMNS + j];
        sum += (levels[a]! - exact[a]!) * covariance[i * COLUMNS + j]! * (levels[b]! - exact[b]!);
      }
    }
  }
  return sum / ROWS;
}

const changesOf = ({ old }: LevelsRequest, levels: ArrayLike<number>): number =>
  old.reduce((count, level, at) => count + Number(level !== levels[at]), 0);

test("errors cancel in what the layer writes, and fewer levels change the more a change costs", () => {
  let [rounded, exact, near] = [0, 0, 0];
  let [changedRounded, changedNear] = [0, 0];
  for (let seed = 1; seed <= 40; seed++) {
    const request = drawn(seed, 0);
    const plain = request.exact.map(Math.round);
    rounded += errorOf(request, plain);
    changedRounded += changesOf(request, plain);
    exact += errorOf(request, levelsNear(request).levels);
    const { levels } = levelsNear({ ...request, changeCost: 0.1 });
    near += errorOf(request, levels);
    changedNear += changesOf(request, levels);
  }
  expect(exact).toBeLessThan(rounded / 4);
  expect(near).toBeLessThan(rounded);
  expect(changedNear).toBeLessThan(0.8 * changedRounded);
});

test("for any weights: levels in range, no worse than the old ones, all of them kept where a change is dear", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.double({ min: 0, max: 4, noNaN: true }),
      fc.double({ min: 0, max: 60, noNaN: true }),
      (seed, changeCost, moves) => {
        const request = drawn(seed, changeCost, moves);
        const { levels, meanErrors } = levelsNear(request);
        expect(Math.max(...levels.map(Math.abs))).toBeLessThanOrEqual(127);
        expect(errorOf(request, levels)).toBeLessThanOrEqual(errorOf(request, request.old) * 1.05 + 1e-9);
        expect(meanErrors.every(Number.isFinite)).toBe(true);
        expect(changesOf(request, levelsNear({ ...request, changeCost: 1e9 }).levels)).toBe(0);
      },
    ),
    { numRuns: 60, seed: 11 },
  );
});

interface Shape {
  readonly input: readonly number[];
  readonly weight: readonly number[];
  readonly attributes: Parameters<GraphBuilder["node"]>[2];
}

const shapes: Readonly<Record<string, Shape>> = {
  "with stride, dilation and uneven pads": {
    input: [2, 3, 9, 8],
    weight: [4, 3, 3, 2],
    attributes: { strides: { ints: [2, 2] }, dilations: { ints: [2, 1] }, pads: { ints: [1, 0, 2, 1] } },
  },
  "in groups, padded to the same size": {
    input: [1, 4, 5, 6],
    weight: [4, 2, 3, 3],
    attributes: { group: { i: 2 }, auto_pad: { s: "SAME_UPPER" } },
  },
  "along one axis": {
    input: [1, 2, 20],
    weight: [3, 2, 5],
    attributes: { pads: { ints: [2, 2] } },
  },
};

test.each(Object.entries(shapes))(
  "a convolution %s: mean and variance of each output follow from its inputs' statistics",
  async (_, { input, weight, attributes }) => {
    const random = new Random(5);
    const draw = (dims: readonly number[]): Float32Array =>
      Float32Array.from({ length: dims.reduce((a, b) => a * b) }, () => random.normal());
    const [x, w] = [draw(input), draw(weight)];
    const graph = new GraphBuilder();
    const stored = graph.initializer(float32Tensor("w", weight, w));
    graph.node("Conv", [graph.input("x", "float32", input), stored], attributes, ["y"]);
    graph.output("y", "float32", []);
    const model = graph.build({ opset: 17 });
    const session = await ortNode.openSession(encodeModel(model), {
      threadCount: 1,
      executionProvider: "cpu",
    });
    const tensor = { type: "float32", dims: input, data: x } as const;
    const { data, dims } = (await session.run({ x: tensor }))["y"]!;
    await session.release();

    const observer = new InputObserver(graphOf(model).node[0]!, weight, 64);
    observer.observe(tensor);
    const { columns, groups } = observer.statistics()!;
    const [images = 0, outputs = 0] = dims;
    const places = data.length / images / outputs;
    for (let output = 0; output < outputs; output++) {
      const { mean, blocks } = groups[Math.floor((output * groups.length) / outputs)]!;
      const row = w.subarray(output * columns, (output + 1) * columns);
      const values = Array.from({ length: images * places }, (__, at) =>
        Number(data[(Math.floor(at / places) * outputs + output) * places + (at % places)]),
      );
      const wanted = values.reduce((a, b) => a + b, 0) / values.length;
      const variance = values.reduce((sum, value) => sum + (value - wanted) ** 2, 0) / values.length;
      expect(row.reduce((sum, value, at) => sum + value * mean[at]!, 0)).toBeCloseTo(wanted, 4);
      const { covariance, length } = blocks[0]!;
      expect(length).toBe(columns);
      let found = 0;
      for (let i = 0; i < columns; i++) {
        for (let j = 0; j < columns; j++) found += row[i]! * covariance[i * columns + j]! * row[j]!;
      }
      expect(found).toBeCloseTo(variance, 3);
    }
  },
);

test("covariances of a large network stay within their memory", () => {
  const small = [{ columns: 100, groups: 1 }];
  expect(blockLengthFor(small)).toBe(256);
  const large = Array.from({ length: 200 }, () => ({ columns: 4096, groups: 1 }));
  const length = blockLengthFor(large);
  expect(length).toBeGreaterThanOrEqual(1);
  expect(200 * 4096 * length * 8).toBeLessThanOrEqual(256 * 1024 * 1024);
});
