import { DISAGREES_FROM, type Box, type Head, type Manifest } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Tensor } from "../backend.js";
import { readHeads } from "../heads/read.js";
import type { HeadResult } from "../heads/result.js";
import { deciding } from "../signals/compute.js";
import { disagreement, type Answer } from "./disagreement.js";

const tensor = (dims: number[], values: readonly number[]): Tensor => ({
  type: "float32",
  dims,
  data: Float32Array.from(values),
});

/** What a manifest with these heads makes of these outputs. */
function answer(heads: Head[], outputs: Record<string, Tensor>): Answer {
  return fromResults(heads, readHeads({ heads, inputs: [] }, outputs, {}));
}

function fromResults(
  heads: Head[],
  results: HeadResult[],
  nodes?: Answer["prediction"]["nodes"],
  manifestNodes: Manifest["nodes"] = [],
): Answer {
  const decision = deciding(results);
  return {
    prediction: {
      class: decision?.class ?? -1,
      label: decision?.label ?? "none",
      heads: results,
      ...(nodes ? { nodes } : {}),
    },
    manifest: { heads, nodes: manifestNodes },
  };
}

const classes = (labels: string[], more: Partial<Extract<Head, { kind: "classification" }>> = {}): Head => ({
  kind: "classification",
  name: "class",
  output: "y",
  labels,
  values: "probabilities",
  activation: "softmax",
  temperature: 1,
  ...more,
});
const says = (labels: string[], values: number[], more = {}): Answer =>
  answer([classes(labels, more)], { y: tensor([1, values.length], values) });

describe("one label", () => {
  it("is the total variation distance, in the upper half where the label is another", () => {
    const a = says(["ok", "scratch"], [0.9, 0.1]);
    expect(disagreement(a, says(["ok", "scratch"], [0.7, 0.3]))).toBeCloseTo(0.5 * 0.2, 6);
    expect(disagreement(a, says(["ok", "scratch"], [0.4, 0.6]))).toBeCloseTo(0.5 + 0.5 * 0.5, 6);
    expect(disagreement(a, a)).toBe(0);
  });
  it("goes by the names of labels where a version has others, or another order", () => {
    const a = says(["ok", "scratch"], [0.9, 0.1]);
    expect(disagreement(a, says(["scratch", "ok"], [0.1, 0.9]))).toBeCloseTo(0, 6);
    expect(disagreement(a, says(["ok", "dent", "scratch"], [0.1, 0.85, 0.05]))).toBeCloseTo(0.5 + 0.425, 6);
  });
  it("is symmetric, in 0..1, and in the upper half exactly where the label is another", () => {
    const distribution = fc
      .array(fc.double({ min: 0.001, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 })
      .map((values) => {
        const sum = values.reduce((total, value) => total + value, 0);
        return values.map((value) => value / sum);
      });
    const labels = ["a", "b", "c", "d"];
    fc.assert(
      fc.property(distribution, distribution, (p, q) => {
        const [a, b] = [says(labels, p), says(labels, q)];
        const value = disagreement(a, b)!;
        expect(value).toBeCloseTo(disagreement(b, a)!, 9);
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThanOrEqual(1);
        expect(value >= DISAGREES_FROM).toBe(a.prediction.label !== b.prediction.label);
      }),
    );
  });
});

describe("several labels at once", () => {
  const labels = ["dirt", "scratch", "dent"];
  const sets = (values: number[]): Answer => says(labels, values, { activation: "sigmoid", threshold: 0.5 });
  it("compares the sets", () => {
    const both = sets([0.9, 0.8, 0.1]);
    expect(disagreement(both, sets([0.7, 0.9, 0.2]))).toBeCloseTo(0.5 * 0.2, 6);
    // One of two is shared: 1 − 1/2.
    expect(disagreement(both, sets([0.9, 0.2, 0.1]))).toBeCloseTo(0.75, 6);
    expect(disagreement(both, sets([0.1, 0.1, 0.9]))).toBe(1);
    expect(disagreement(sets([0, 0, 0]), sets([0.1, 0, 0]))).toBeCloseTo(0.05, 6);
  });
});

const detection: Head = {
  kind: "detection",
  name: "objects",
  format: "yolov10",
  boxes: "y",
  labels: ["screw", "nut"],
  scoreThreshold: 0.2,
  iouThreshold: 0.5,
  suppression: "class",
  detectionsMax: 100,
  strides: [8],
};
const box = (x0: number, score: number, kind = 0): Box => ({
  x0,
  y0: 0,
  x1: x0 + 0.1,
  y1: 0.1,
  class: kind,
  score,
});
function sees(...boxes: Box[]): Answer {
  const best = [...boxes].sort((a, b) => b.score - a.score)[0];
  const result: HeadResult = {
    kind: "detection",
    name: "objects",
    class: best?.class ?? -1,
    label: best ? ["screw", "nut"][best.class]! : "none",
    confidence: best?.score ?? 1,
    margin: 1,
    entropy: 0,
    boxes,
  };
  return fromResults([detection], [result]);
}

describe("boxes", () => {
  it("are the same object where they overlap by half and have one label", () => {
    expect(disagreement(sees(box(0, 0.9), box(0.5, 0.8)), sees(box(0.52, 0.8), box(0.01, 0.9)))).toBe(0);
    expect(disagreement(sees(), sees())).toBe(0);
    // A third of the overlap is left: another place, so both are alone.
    expect(disagreement(sees(box(0, 0.9)), sees(box(0.05, 0.9)))).toBe(1);
    expect(disagreement(sees(box(0, 0.9)), sees(box(0, 0.9, 1)))).toBe(1);
  });
  it("count as another decision where one is certain of what the other does not see", () => {
    const two = [box(0, 0.9), box(0.5, 0.7)];
    // Alone: 0.7 of 2.5, and 0.7 is beyond the middle between 0.2 and 1.
    expect(disagreement(sees(...two), sees(box(0, 0.9)))).toBeCloseTo(0.5 + (0.5 * 0.7) / 2.5, 6);
    // One just above its threshold is no other decision.
    expect(disagreement(sees(...two, box(0.8, 0.25)), sees(...two))).toBeCloseTo((0.5 * 0.25) / 3.45, 6);
  });
  it("are one to one: two boxes on one object leave one alone", () => {
    const value = disagreement(sees(box(0, 0.9), box(0.01, 0.3)), sees(box(0, 0.9)));
    expect(value).toBeCloseTo((0.5 * 0.3) / 2.1, 6);
  });
});

const segmentation = (labels: string[], output = "y"): Head => ({
  kind: "segmentation",
  name: "surface",
  output,
  labels,
  values: "labels",
  layout: "nchw",
  background: "ok",
});
const masks = (labels: string[], width: number, pixels: number[]): Answer =>
  answer([segmentation(labels)], { y: tensor([1, pixels.length / width, width], pixels) });

describe("masks", () => {
  const labels = ["ok", "rust"];
  it("are 1 minus the mean intersection over union of the labels that are there", () => {
    const a = masks(labels, 4, [0, 0, 1, 1]);
    expect(disagreement(a, masks(labels, 4, [0, 0, 1, 1]))).toBe(0);
    // ok: 2 of 3, rust: 1 of 2; the decision is rust for both.
    const overlap = (2 / 3 + 1 / 2) / 2;
    expect(disagreement(a, masks(labels, 4, [0, 0, 0, 1]))).toBeCloseTo(0.5 * (1 - overlap), 6);
    expect(disagreement(a, masks(labels, 4, [0, 0, 0, 0]))).toBeCloseTo(0.5 + 0.5 * (1 - 0.25), 6);
    // Rust for both, but hardly at one place.
    expect(disagreement(a, masks(labels, 4, [1, 1, 0, 0]))).toBe(1);
  });
  it("of two sizes and two lists of labels are compared on the smaller grid, by name", () => {
    const large = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1].map((value) => 1 - value);
    expect(disagreement(masks(labels, 4, [0, 0, 1, 1]), masks(["rust", "ok"], 8, large))).toBe(0);
  });
});

describe("values", () => {
  const regression = (targets: { name: string; min?: number; max?: number }[]): Head => ({
    kind: "regression",
    name: "size",
    output: "y",
    targets: targets.map((target) => ({ unit: "", scale: 1, offset: 0, ...target })),
  });
  const measures = (values: number[], targets: Parameters<typeof regression>[0]): Answer =>
    answer([regression(targets)], { y: tensor([1, values.length], values) });

  it("differ from 5 % of the range on", () => {
    const range = [{ name: "width", min: 0, max: 10 }];
    expect(disagreement(measures([2], range), measures([2.4], range))).toBeCloseTo(0.4, 5);
    expect(disagreement(measures([2], range), measures([2.5], range))).toBeCloseTo(0.5, 5);
    expect(disagreement(measures([2], range), measures([4], range))).toBe(1);
  });
  it("differ from 5 % of the larger on where no range is declared; the worst target counts, by name", () => {
    const a = measures([100, 1], [{ name: "width" }, { name: "height" }]);
    const b = measures([1, 104], [{ name: "height" }, { name: "width" }]);
    expect(disagreement(a, b)).toBeCloseTo((0.5 * 4) / (0.05 * 104), 5);
    expect(disagreement(measures([0], [{ name: "w" }]), measures([0], [{ name: "w" }]))).toBe(0);
    expect(disagreement(measures([1], [{ name: "w" }]), measures([1], [{ name: "v" }]))).toBeUndefined();
  });

  it("of an anomaly are decided by the threshold", () => {
    const head: Head = {
      kind: "anomaly",
      name: "anomaly",
      method: "score",
      output: "y",
      threshold: 1,
      labels: ["normal", "anomalous"],
    };
    const scores = (value: number): Answer => answer([head], { y: tensor([1, 1], [value]) });
    const p = (score: number): number => 1 / (1 + score ** -4);
    expect(disagreement(scores(0.5), scores(0.8))).toBeCloseTo(0.5 * (p(0.8) - p(0.5)), 5);
    expect(disagreement(scores(0.5), scores(1.5))).toBeCloseTo(0.5 + 0.5 * (p(1.5) - p(0.5)), 5);
  });

  it("of points: a half that moved or is gone is another decision", () => {
    const head: Head = {
      kind: "keypoints",
      name: "pose",
      output: "y",
      labels: ["nose", "tail"],
      format: "coordinates",
      units: "unit",
      values: 2,
      scoreThreshold: 0.3,
    };
    const at = (...values: number[]): Answer => answer([head], { y: tensor([1, 2, 2], values) });
    expect(disagreement(at(0.5, 0.5, 0.9, 0.9), at(0.52, 0.5, 0.9, 0.92))).toBe(0);
    expect(disagreement(at(0.5, 0.5, 0.9, 0.9), at(0.7, 0.5, 0.9, 0.9))).toBeCloseTo(0.75, 6);
  });

  it("of embeddings say nothing, and of two images only where they have one size", () => {
    const embedding: Head = { kind: "embedding", name: "e", output: "y", length: 2 };
    const vector = answer([embedding], { y: tensor([1, 2], [1, 2]) });
    expect(disagreement(vector, vector)).toBeUndefined();
    const image = (size: number, level: number): HeadResult => ({
      kind: "image",
      name: "i",
      data: new Uint8Array(size).fill(level),
      width: size,
      height: 1,
      channels: 1,
    });
    const head: Head = {
      kind: "image",
      name: "i",
      output: "y",
      colour: "gray",
      layout: "nchw",
      range: "unit",
      mean: [0],
      std: [1],
    };
    const shows = (size: number, level: number): Answer => fromResults([head], [image(size, level)]);
    expect(disagreement(shows(4, 0), shows(4, 51))).toBe(1);
    expect(disagreement(shows(4, 0), shows(4, 5))).toBeCloseTo((0.5 * 5) / 25.5, 5);
    expect(disagreement(shows(4, 0), shows(5, 0))).toBeUndefined();
  });
});

describe("versions with other heads", () => {
  it("pair the only head of a kind whatever its name, and take the worst of several", () => {
    const a = says(["ok", "bad"], [0.9, 0.1]);
    const renamed = says(["ok", "bad"], [0.2, 0.8], { name: "verdict" });
    expect(disagreement(a, renamed)).toBeCloseTo(0.5 + 0.35, 6);
    const two = [classes(["ok", "bad"]), classes(["x", "y"], { name: "side", output: "z" })];
    const pair = (y: number[], z: number[]): Answer =>
      answer(two, { y: tensor([1, 2], y), z: tensor([1, 2], z) });
    expect(disagreement(pair([1, 0], [1, 0]), pair([1, 0], [0, 1]))).toBe(1);
  });
  it("of another kind are compared by their labels", () => {
    expect(disagreement(says(["screw", "nut"], [0.9, 0.1]), sees(box(0, 0.9)))).toBe(0);
    expect(disagreement(says(["screw", "nut"], [0.1, 0.9]), sees(box(0, 0.9)))).toBe(1);
  });
});

describe("pipelines", () => {
  const grade = classes(["good", "bad"], { name: "grade" });
  const node = {
    name: "grade",
    model: "grade",
    version: 1,
    heads: [grade],
  } as unknown as Manifest["nodes"][number];
  const graded = (boxes: Box[], grades: readonly number[][]): Answer => {
    const root = sees(...boxes);
    const nodes = grades.map((values, crop) => ({
      node: "grade",
      model: "grade",
      version: 1,
      crop,
      latencyMs: 1,
      heads: readHeads({ heads: [grade], inputs: [] }, { y: tensor([1, 2], values) }, {}),
    }));
    return fromResults([detection], [...root.prediction.heads], nodes, [node]);
  };
  it("compare what a node says of the boxes that both see", () => {
    const boxes = [box(0, 0.9), box(0.5, 0.8)];
    const a = graded(boxes, [
      [0.9, 0.1],
      [0.9, 0.1],
    ]);
    const swapped = graded(
      [box(0.5, 0.9), box(0, 0.8)],
      [
        [0.9, 0.1],
        [0.8, 0.2],
      ],
    );
    expect(disagreement(a, swapped)).toBeCloseTo(0.05, 6);
    const other = graded(boxes, [
      [0.9, 0.1],
      [0.1, 0.9],
    ]);
    expect(disagreement(a, other)).toBeCloseTo(0.9, 6);
  });
});
