import { headSchema, type Head } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Tensor } from "../backend.js";
import { readAnomaly } from "./anomaly.js";
import { readClassification } from "./classification.js";
import { readImage } from "./image.js";
import { readKeypoints } from "./keypoints.js";
import { headOutputs } from "./read.js";
import { readRegression } from "./regression.js";
import { readSegmentation, unlabelled } from "./segmentation.js";

/** A head as a manifest would give it, with the defaults of the schema. */
function headOf<K extends Head["kind"]>(kind: K, more: object): Extract<Head, { kind: K }> {
  return headSchema.parse({ kind, name: "head", output: "y", ...more }) as Extract<Head, { kind: K }>;
}
const float = (dims: number[], values: ArrayLike<number>): Tensor => ({
  type: "float32",
  dims,
  data: Float32Array.from(values),
});
const invalid = expect.objectContaining({ code: "model_output_invalid" });

describe("segmentation", () => {
  const labels = ["road", "car", "sky"];
  const head = headOf("segmentation", { labels, values: "logits", background: "road" });

  it("takes the best class of each pixel in both layouts, and the largest that is not the background", () => {
    const pixel = fc.integer({ min: 0, max: 2 });
    fc.assert(
      fc.property(fc.array(pixel, { minLength: 12, maxLength: 12 }), (classes) => {
        const planes = new Float32Array(36);
        const vectors = new Float32Array(36);
        classes.forEach((label, at) => {
          planes[label * 12 + at] = 5;
          vectors[at * 3 + label] = 5;
        });
        const result = readSegmentation(head, float([1, 3, 3, 4], planes));
        expect(result.mask).toEqual({ width: 4, height: 3, classes: Uint8Array.from(classes) });
        const last = { ...head, layout: "nhwc" as const };
        expect(readSegmentation(last, float([1, 3, 4, 3], vectors))).toEqual(result);
        const count = (label: number) => classes.filter((one) => one === label).length;
        [0, 1, 2].forEach((label) => expect(result.shares[label]).toBeCloseTo(count(label) / 12, 6));
        const found = count(1) + count(2) > 0;
        expect(result.class).toBe(found ? (count(1) >= count(2) ? 1 : 2) : -1);
        expect(result.label).toBe(found ? labels[result.class] : "none");
        const p = Math.exp(5) / (Math.exp(5) + 2);
        expect(result.confidence).toBeCloseTo(p, 6);
        expect(result.margin).toBeCloseTo(p - (1 - p) / 2, 6);
      }),
    );
  });
  it("takes one channel for a sigmoid, of one label or of two", () => {
    const output = float([1, 1, 1, 4], [2, -1, -3, -0.5]);
    const one = headOf("segmentation", { labels: ["crack"], values: "logits" });
    const result = readSegmentation(one, output);
    expect([...result.mask.classes]).toEqual([0, 255, 255, 255]);
    expect(unlabelled(result.mask)).toBe(255);
    expect(result).toMatchObject({ class: 0, label: "crack", shares: Float32Array.of(0.25) });
    expect(result.confidence).toBeCloseTo(1 / (1 + Math.exp(-2)), 6);
    const two = headOf("segmentation", { labels: ["fine", "crack"], values: "logits", background: "fine" });
    expect([...readSegmentation(two, output).mask.classes]).toEqual([1, 0, 0, 0]);
  });
  it("refuses logits that are said to be probabilities: one half would be another bound", () => {
    const one = headOf("segmentation", { labels: ["crack"], values: "probabilities" });
    expect(() => readSegmentation(one, float([1, 1, 1, 2], [0.4, -3]))).toThrow(
      /holds -3, wanted probabilities/,
    );
    const many = { ...head, values: "probabilities" as const };
    const logits = float([1, 3, 1, 1], [0.1, 6, 0.2]);
    expect(() => readSegmentation(many, logits)).toThrow(invalid);
    expect(readSegmentation(many, float([1, 3, 1, 1], [0.1, 0.7, 0.2])).confidence).toBeCloseTo(0.7, 5);
  });
  it("reads class numbers, the ignored ones too", () => {
    const numbers = { ...head, values: "labels" as const };
    const output: Tensor = { type: "int64", dims: [1, 2, 2], data: BigInt64Array.of(2n, 2n, 0n, 255n) };
    expect(readSegmentation(numbers, output)).toMatchObject({
      class: 2,
      label: "sky",
      confidence: 1,
      margin: 1,
    });
    const beyond: Tensor = { ...output, data: BigInt64Array.of(2n, 7n, 0n, 0n) };
    expect(() => readSegmentation(numbers, beyond)).toThrow(/names class 7, there are 3 labels/);
  });
  it("leaves pixels that are no numbers without a label, and refuses other shapes", () => {
    const output = float([1, 3, 1, 2], [Number.NaN, 1, Number.NaN, 0, Number.NaN, 0]);
    const result = readSegmentation(head, output);
    expect([...result.mask.classes]).toEqual([255, 0]);
    expect(Number.isFinite(result.confidence)).toBe(true);
    expect(() => readSegmentation(head, float([1, 4, 1, 2], new Float32Array(8)))).toThrow(invalid);
  });
});

describe("keypoints", () => {
  it("finds the middle of a Gaussian below the cell of its peak", () => {
    const head = headOf("keypoints", { labels: ["tip"], format: "heatmap" });
    const place = fc.double({ min: 3, max: 20, noNaN: true });
    fc.assert(
      fc.property(place, place, (x, y) => {
        const plane = Array.from({ length: 24 * 32 }, (_, at) =>
          Math.exp(-(((at % 32) + 0.5 - x) ** 2 + (Math.floor(at / 32) + 0.5 - y) ** 2) / 8),
        );
        const geometry = { scaleX: 0.5, scaleY: 1, offsetX: 0.25, offsetY: 0 };
        const [point] = readKeypoints(head, float([1, 1, 24, 32], plane), { geometry }).points;
        expect(Math.abs(point!.x - (x / 32 / 2 + 0.25))).toBeLessThan(0.002);
        expect(Math.abs(point!.y - y / 24)).toBeLessThan(0.002);
      }),
    );
  });
  it("reads coordinates in pixels, y first, and leaves out what scores too little", () => {
    const head = headOf("keypoints", {
      labels: ["a", "b", "c"],
      format: "coordinates",
      values: 3,
      units: "pixel",
      order: "yx",
    });
    const output = float([1, 1, 3, 3], [10, 40, 0.9, 5, 5, 0.2, Number.NaN, 5, 1]);
    const result = readKeypoints(head, output, { size: { width: 80, height: 20 } });
    expect(result.points).toEqual([{ label: "a", x: 0.5, y: 0.5, score: expect.closeTo(0.9, 6) }]);
    expect(result.confidence).toBeCloseTo(1.1 / 3, 6);
    expect(() => readKeypoints(head, output)).toThrow(/wanted an input that is an image/);
    expect(() => readKeypoints(head, float([1, 4], [0, 0, 0, 0]))).toThrow(invalid);
  });
});

describe("regression", () => {
  const targets = [{ name: "speed", scale: 10, offset: 5, min: 0, max: 50 }, { name: "angle" }];
  const head = headOf("regression", { targets });
  it("scales, and places the first value in its range", () => {
    const result = readRegression(head, float([1, 2], [2, 0.5]));
    expect([...result.values]).toEqual([25, 0.5]);
    expect(result.position).toBe(0.5);
    expect(readRegression(head, float([1, 2], [9.5, 0])).position).toBe(2);
  });
  it("refuses another number of values, and what is not finite", () => {
    expect(() => readRegression(head, float([1, 3], [1, 2, 3]))).toThrow(invalid);
    expect(() => readRegression(head, float([1, 2], [1, Infinity]))).toThrow(invalid);
  });
});

describe("image", () => {
  it("turns planes into pixels, red first, clipped and rounded", () => {
    const head = headOf("image", { colour: "bgr", layout: "nchw", range: "byte" });
    const { data, width, height, channels } = readImage(
      head,
      float([1, 3, 1, 2], [300, 10.4, -5, 20.6, Number.NaN, 30]),
    );
    expect({ width, height, channels }).toEqual({ width: 2, height: 1, channels: 3 });
    expect([...data]).toEqual([0, 0, 255, 30, 21, 10]);
  });
  it("undoes mean and deviation of a gray image with channels last", () => {
    const head = headOf("image", { colour: "gray", layout: "nhwc", range: "unit", mean: [0.5], std: [0.5] });
    expect([...readImage(head, float([1, 1, 3, 1], [-1, 0.2, 1])).data]).toEqual([0, 153, 255]);
    expect(() => readImage(head, float([1, 3, 1, 1, 1], [1, 2, 3]))).toThrow(invalid);
  });
});

describe("anomaly by other measures", () => {
  const labels = { labels: ["fine", "odd"] };
  it("takes the distance of an embedding from the baseline", () => {
    const head = headOf("anomaly", { method: "embedding", threshold: 2, ...labels });
    const novelty = { centroids: Float32Array.of(1, 0), count: 1, length: 2, median: 0.5 };
    const far = readAnomaly(head, float([1, 2], [0, 3]), { novelty });
    expect(far.error).toBeCloseTo(Math.SQRT2 / 0.5, 6);
    expect(far).toMatchObject({ class: 1, label: "odd" });
    expect(() => readAnomaly(head, float([1, 2], [0, 3]))).toThrow(
      expect.objectContaining({ code: "manifest_invalid" }),
    );
  });
  it("takes the score itself, of a map the highest", () => {
    const head = headOf("anomaly", { method: "score", threshold: 2, ...labels });
    expect(readAnomaly(head, float([1, 1, 2, 2], [0, 3, 1, 2]))).toMatchObject({
      error: 3,
      score: 1.5,
      class: 1,
    });
    expect(() => readAnomaly(head, float([1, 2], [0, Number.NaN]))).toThrow(/not finite/);
  });
  it("compares 8-bit input and output by what they stand for", () => {
    const head = headOf("anomaly", {
      method: "reconstruction",
      threshold: 1,
      quantization: { scale: 0.5, zeroPoint: 10 },
    });
    const int8 = (...values: number[]): Tensor => ({
      type: "int8",
      dims: [1, 2],
      data: Int8Array.from(values),
    });
    const reference = { input: int8(2, 4), inputQuantization: { scale: 1, zeroPoint: 0 } };
    expect(readAnomaly(head, int8(14, 22), reference).error).toBe(2);
  });
});

describe("classification", () => {
  const head = headOf("classification", {
    labels: ["a", "b"],
    values: "probabilities",
    activation: "sigmoid",
    threshold: 0.5,
  });
  it("says none with what speaks against the likeliest label, where none reaches the threshold", () => {
    const result = readClassification(head, float([1, 2], [0.1, 0.3]));
    expect(result).toMatchObject({ class: -1, label: "none" });
    expect(result.confidence).toBeCloseTo(0.7, 6);
    expect(readClassification(head, float([1, 2], [0.1, 0.5]))).toMatchObject({ class: 1, label: "b" });
  });
  it("reads 8-bit probabilities by their scale", () => {
    const quantized = { ...head, quantization: { scale: 1 / 256, zeroPoint: -128 } };
    const output: Tensor = { type: "int8", dims: [1, 2], data: Int8Array.of(-128, 64) };
    expect(readClassification(quantized, output)).toMatchObject({ class: 1, confidence: 0.75 });
  });
});

it("names every output that heads read, each once", () => {
  const detection = headOf("detection", {
    format: "ssd",
    boxes: "b",
    scores: "s",
    labels: ["face"],
    scoreThreshold: 0.5,
    iouThreshold: 0.5,
    keypoints: { labels: ["nose"], output: "k" },
    masks: { prototypes: "p", count: 4 },
  });
  const embedding = headOf("embedding", { output: "b", length: 4 });
  expect(headOutputs([detection, embedding])).toEqual(["b", "s", "k", "p"]);
});
