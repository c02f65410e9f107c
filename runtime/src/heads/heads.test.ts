import { describe, expect, it, test } from "vitest";
import type { Tensor } from "../backend.js";
import { anomalyProbability, readAnomaly, type AnomalyHead } from "./anomaly.js";
import { readClassification, type ClassificationHead } from "./classification.js";
import type { Geometry } from "../input/frame.js";
import { readDetection, type DetectionHead } from "./detection.js";
import {
  argmax,
  binaryEntropy,
  energyOf,
  normalizedEntropy,
  sigmoid,
  softmax,
  topMargin,
} from "./distribution.js";
import { headOutputs, readHeads } from "./read.js";

const tensor = (values: number[], dims = [1, values.length]): Tensor => ({
  type: "float32",
  dims,
  data: Float32Array.from(values),
});
const close = (actual: ArrayLike<number>, expected: number[]): void => {
  expect(actual.length).toBe(expected.length);
  expected.forEach((value, at) => expect(actual[at]).toBeCloseTo(value, 6));
};

describe("distributions, by hand", () => {
  const logits = Float32Array.from([Math.log(1), Math.log(2), Math.log(5)]);
  test("softmax", () => close(softmax(logits), [0.125, 0.25, 0.625]));
  test("softmax at temperature 2 has the square roots' shares", () => {
    const sum = 1 + Math.SQRT2 + Math.sqrt(5);
    close(softmax(logits, 2), [1 / sum, Math.SQRT2 / sum, Math.sqrt(5) / sum]);
  });
  test("softmax of huge logits stays finite", () => close(softmax(Float32Array.from([5000, 4000])), [1, 0]));
  test("sigmoid", () => close(sigmoid(Float32Array.from([0, Math.log(3)])), [0.5, 0.75]));
  test("sigmoid at temperature 2", () => close(sigmoid(Float32Array.from([2 * Math.log(3)]), 2), [0.75]));
  test("energy is -ln of the sum", () => expect(energyOf(logits)).toBeCloseTo(-Math.log(8), 6));
  test("energy at temperature 2", () => {
    expect(energyOf(logits, 2)).toBeCloseTo(-2 * Math.log(1 + Math.SQRT2 + Math.sqrt(5)), 5);
  });
  test("entropy over its maximum", () => {
    expect(normalizedEntropy(Float32Array.from([0.25, 0.25, 0.25, 0.25]))).toBeCloseTo(1, 6);
    expect(normalizedEntropy(Float32Array.from([0.5, 0.5, 0, 0]))).toBeCloseTo(0.5, 6);
    expect(normalizedEntropy(Float32Array.from([1]))).toBe(0);
  });
  test("binary entropy", () => {
    expect(binaryEntropy(0.5)).toBe(1);
    expect(binaryEntropy(0.25)).toBeCloseTo(0.811278, 6);
    expect(binaryEntropy(0)).toBe(0);
  });
  test("margin and argmax", () => {
    expect(topMargin(Float32Array.from([0.2, 0.7, 0.1]))).toBeCloseTo(0.5, 6);
    expect(argmax(Float32Array.from([1, 3, 3]))).toBe(1);
    expect(argmax(Float32Array.from([Number.NaN, Number.NaN]))).toBe(-1);
  });
});

const classifier: ClassificationHead = {
  kind: "classification",
  name: "class",
  output: "y",
  labels: ["a", "b", "c"],
  values: "logits",
  activation: "softmax",
  temperature: 1,
};

describe("classification", () => {
  it("reads logits", () => {
    const result = readClassification(classifier, tensor([0, Math.log(2), Math.log(5)]));
    expect(result).toMatchObject({ class: 2, label: "c" });
    expect(result.confidence).toBeCloseTo(0.625, 6);
    expect(result.margin).toBeCloseTo(0.375, 6);
    expect(result.energy).toBeCloseTo(-Math.log(8), 6);
    const entropy =
      -(0.125 * Math.log(0.125) + 0.25 * Math.log(0.25) + 0.625 * Math.log(0.625)) / Math.log(3);
    expect(result.entropy).toBeCloseTo(entropy, 6);
  });
  it("reads probabilities as they are, without energy", () => {
    const result = readClassification({ ...classifier, values: "probabilities" }, tensor([0.2, 0.7, 0.1]));
    expect(result).toMatchObject({ class: 1, label: "b" });
    expect(result.confidence).toBeCloseTo(0.7, 6);
    expect(result.energy).toBeUndefined();
  });
  it.each([[[0.2, 7.1, 0.1]], [[-0.4, 0.3, 0.2]]])("refuses %j as probabilities", (values) => {
    expect(() => readClassification({ ...classifier, values: "probabilities" }, tensor(values))).toThrow(
      /output "y" holds (7\.1|-0\.4), wanted probabilities; logits are named as such/,
    );
  });
  it("takes the doubt of the most doubtful of several labels", () => {
    const head = { ...classifier, activation: "sigmoid" as const };
    const result = readClassification(head, tensor([4, Math.log(3), -4]));
    expect(result.class).toBe(0);
    expect(result.margin).toBeCloseTo(0.5, 6);
    expect(result.entropy).toBeCloseTo(0.811278, 5);
  });
  it.each([
    ["another number of values", [1, 2]],
    ["nothing but NaN", [Number.NaN, Number.NaN, Number.NaN]],
    ["a NaN among the logits", [1, Number.NaN, 0]],
    ["an infinite logit", [Number.POSITIVE_INFINITY, 0, 0]],
  ])("refuses %s", (_, values) => {
    expect(() => readClassification(classifier, tensor(values))).toThrow(
      expect.objectContaining({ code: "model_output_invalid" }),
    );
  });
});

const detector: DetectionHead = {
  kind: "detection",
  name: "faces",
  format: "ultraface",
  boxes: "b",
  scores: "s",
  labels: ["face"],
  scoreThreshold: 0.7,
  suppression: "class",
  strides: [8, 16, 32],
  iouThreshold: 0.3,
  detectionsMax: 100,
};
const scores = (...face: number[]): Tensor =>
  tensor(
    face.flatMap((score) => [1 - score, score]),
    [1, face.length, 2],
  );
const boxes = (...corners: number[][]): Tensor => tensor(corners.flat(), [1, corners.length, 4]);

const read = (s: Tensor, b: Tensor, geometry?: Geometry) =>
  readDetection(detector, { s, b }, geometry === undefined ? {} : { geometry });

describe("detection", () => {
  const left = [0.1, 0.1, 0.3, 0.3];
  const leftShifted = [0.11, 0.1, 0.31, 0.3];
  const right = [0.6, 0.6, 0.8, 0.9];

  it("keeps the best of what overlaps, best first, and doubts what is under the threshold", () => {
    const result = read(scores(0.8, 0.95, 0.9, 0.45), boxes(leftShifted, left, right, [0, 0.5, 0.2, 0.9]));
    expect(result.boxes.map((box) => box.score)).toEqual([expect.closeTo(0.95, 5), expect.closeTo(0.9, 5)]);
    expect(result.boxes[0]).toMatchObject({
      class: 0,
      x0: expect.closeTo(0.1, 5),
      y1: expect.closeTo(0.3, 5),
    });
    expect(result).toMatchObject({ class: 0, label: "face" });
    expect(result.confidence).toBeCloseTo(0.95, 5);
    expect(result.margin).toBeCloseTo(0.1, 5);
  });
  it("says none with 1 minus the highest score where nothing reaches the threshold", () => {
    const result = read(scores(0.2, 0.3), boxes(left, right));
    expect(result).toMatchObject({ class: -1, label: "none", boxes: [] });
    expect(result.confidence).toBeCloseTo(0.7, 5);
    expect(result.margin).toBeCloseTo(0.4, 5);
  });
  it("takes letterbox bars out of the boxes and clips to the image", () => {
    // A square image in a 2:1 input: the model sees it in the middle half of the width.
    const geometry = { scaleX: 2, scaleY: 1, offsetX: -0.5, offsetY: 0 };
    const result = read(scores(0.9), boxes([0.25, 0.2, 0.8, 0.5]), geometry);
    expect(result.boxes[0]).toMatchObject({
      x0: expect.closeTo(0, 5),
      y0: expect.closeTo(0.2, 5),
      x1: 1,
      y1: expect.closeTo(0.5, 5),
    });
  });
  it("refuses scores that are no numbers, passes over the odd one, and clips NaN corners", () => {
    expect(() => read(scores(Number.NaN), boxes(left))).toThrow(/no score that is a number/);
    expect(read(scores(Number.NaN, 0.1), boxes(left, right)).boxes).toEqual([]);
    const odd = read(scores(0.9), boxes([Number.NaN, 0, 2, 1]));
    expect(odd.boxes[0]).toMatchObject({ x0: 0, y0: 0, x1: 1, y1: 1 });
  });
  it.each([0, 1, 2])("reads a list of %d boxes without a batch", (count) => {
    const head: DetectionHead = { ...detector, format: "yolov10", boxes: "b", suppression: "none" };
    const row = [1, 2, 5, 8, 0.9, 0];
    const list = tensor(Array.from({ length: count }, () => row).flat(), [count, 6]);
    const { boxes: found } = readDetection(head, { b: list }, { size: { width: 10, height: 10 } });
    expect(found).toHaveLength(count);
    for (const box of found) expect(box.y1).toBeCloseTo(0.8, 5);
  });
  it("takes pixels where the head says so, whatever the format's custom", () => {
    const size = { width: 100, height: 200 };
    const corners: DetectionHead = { ...detector, units: "pixel" };
    const found = readDetection(corners, { s: scores(0.9), b: boxes([10, 20, 50, 100]) }, { size });
    const centre: DetectionHead = { ...corners, format: "rtdetr", values: "probabilities", labels: ["face"] };
    const query = readDetection(
      centre,
      { s: tensor([0.9], [1, 1, 1]), b: boxes([30, 60, 40, 80]) },
      { size },
    );
    for (const {
      boxes: [box],
    } of [found, query]) {
      expect([box!.x0, box!.y0, box!.x1, box!.y1]).toEqual(
        [0.1, 0.1, 0.5, 0.5].map((to) => expect.closeTo(to, 5)),
      );
    }
  });
  it("refuses outputs of different lengths", () => {
    expect(() => read(scores(0.9, 0.8), boxes(left))).toThrow(/wanted \[1, N, 2\]/);
  });
  it("stays quick and within its limit on a frame full of noise", () => {
    const count = 4420;
    const noise = Array.from({ length: count }, (_, at) => 0.7 + (0.3 * ((at * 7919) % 100)) / 100);
    const spread = Array.from({ length: count }, (_, at) => {
      const x = ((at * 31) % 97) / 97;
      const y = ((at * 17) % 89) / 89;
      return [x, y, x + 0.01, y + 0.01];
    });
    const started = performance.now();
    expect(read(scores(...noise), boxes(...spread)).boxes.length).toBe(100);
    expect(performance.now() - started).toBeLessThan(500);
  });
});

const anomaly: AnomalyHead = {
  kind: "anomaly",
  name: "anomaly",
  method: "reconstruction",
  output: "y",
  threshold: 0.5,
  labels: ["normal", "anomalous"],
};

describe("anomaly", () => {
  it("scores the mean squared difference over the threshold", () => {
    // Differences 1, 0, 0, 1: mean square 0.5, score 1: exactly at the threshold is still normal.
    const result = readAnomaly(anomaly, tensor([1, 2, 3, 5]), { input: tensor([0, 2, 3, 4]) });
    expect(result).toMatchObject({
      error: 0.5,
      score: 1,
      class: 0,
      label: "normal",
      confidence: 0.5,
      margin: 0,
    });
  });
  it("grows more certain with the distance from the threshold", () => {
    const far = readAnomaly(anomaly, tensor([2, 0]), { input: tensor([0, 0]) });
    expect(far).toMatchObject({ score: 4, class: 1, label: "anomalous" });
    expect(far.confidence).toBeCloseTo(256 / 257, 9);
    const near = readAnomaly(anomaly, tensor([0.1, 0]), { input: tensor([0, 0]) });
    expect(near.class).toBe(0);
    expect(near.confidence).toBeGreaterThan(0.99);
  });
  it("maps scores to belief by r⁴ / (1 + r⁴)", () => {
    expect(anomalyProbability(0)).toBe(0);
    expect(anomalyProbability(1)).toBe(0.5);
    expect(anomalyProbability(2)).toBeCloseTo(16 / 17, 9);
    expect(anomalyProbability(Number.POSITIVE_INFINITY)).toBe(1);
  });
  it("refuses another length and values that are not finite", () => {
    expect(() => readAnomaly(anomaly, tensor([1]), { input: tensor([1, 2]) })).toThrow(
      /1 values, its input 2/,
    );
    expect(() => readAnomaly(anomaly, tensor([Number.NaN]), { input: tensor([1]) })).toThrow(/not finite/);
  });
});

describe("all heads of a manifest", () => {
  const manifest = {
    inputs: [{ kind: "tensor" as const, name: "x", elementType: "float32" as const, dims: [1, 3] }],
    heads: [classifier, { kind: "embedding" as const, name: "e", output: "h", length: 2 }],
  };
  it("are read in order from one run", () => {
    const results = readHeads(
      manifest,
      { y: tensor([0, 1, 2]), h: tensor([3, 4]) },
      { x: tensor([0, 0, 0]) },
    );
    expect(results.map((result) => result.kind)).toEqual(["classification", "embedding"]);
    expect(headOutputs(manifest.heads)).toEqual(["y", "h"]);
  });
  it("refuse a missing output and an embedding of another length", () => {
    expect(() => readHeads(manifest, { y: tensor([0, 1, 2]) }, {})).toThrow(/no tensor "h"/);
    expect(() => readHeads(manifest, { y: tensor([0, 1, 2]), h: tensor([1]) }, {})).toThrow(
      /1 values, wanted 2/,
    );
  });
  it("read 64-bit integers and half floats too", () => {
    const half: Tensor = { type: "float16", dims: [1, 3], data: Uint16Array.from([0x3c00, 0xc000, 0x0001]) };
    const [first] = readHeads({ ...manifest, heads: [classifier] }, { y: half }, {});
    expect(first).toMatchObject({ class: 0, logits: Float32Array.from([1, -2, 2 ** -24]) });
    const whole: Tensor = { type: "int64", dims: [1, 3], data: BigInt64Array.from([1n, 7n, 2n]) };
    expect(readHeads({ ...manifest, heads: [classifier] }, { y: whole }, {})[0]).toMatchObject({ class: 1 });
  });
});
