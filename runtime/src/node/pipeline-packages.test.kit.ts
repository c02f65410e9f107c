import type { ManifestInput } from "@fieldloop/protocol";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor, int64Tensor } from "../onnx/tensor.js";
import type { ManifestDraft } from "./write-package.js";

export type NodeDraft = NonNullable<ManifestDraft["nodes"]>[number];
export type HeadDraft = ManifestInput["heads"][number];

export interface Draft {
  readonly draft: ManifestDraft;
  readonly files: Record<string, Uint8Array>;
}

const OPSET = 17;

export function variantOf(file: string): ManifestDraft["variants"][number] {
  return { name: "fp32", file, precision: "fp32", opset: OPSET, executionProviders: ["cpu"] };
}

/** A manifest of which a test says the rest. */
export function draftOf(
  more: Pick<ManifestDraft, "inputs" | "heads" | "variants"> & Partial<ManifestDraft>,
): ManifestDraft {
  return {
    schema: 1,
    model: "part",
    version: 1,
    created: "2026-11-20T00:00:00Z",
    task: "pipeline",
    licence: "Apache-2.0",
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
    ...more,
  };
}

export function imageInput(
  size: number,
  more: { colour?: "gray" | "rgb"; resize?: "stretch" | "letterbox" } = {},
): ManifestInput["inputs"][number] {
  return {
    kind: "image",
    name: "image",
    width: size,
    height: size,
    colour: more.colour ?? "gray",
    resize: more.resize ?? "stretch",
    layout: "nchw",
    range: "unit",
  };
}

export function labelHead(output: string, labels: readonly string[]): HeadDraft {
  return { name: "class", kind: "classification", output, labels: [...labels], values: "logits" };
}

/** Four means of the quarters of a 4×4 gray image: left top, right top, left bottom, right bottom, as `features` [1, 4]. */
export function quartersModel(): Uint8Array {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", ["n", 1, 4, 4]);
  const [pooled] = graph.node("AveragePool", [image], {
    kernel_shape: { ints: [2, 2] },
    strides: { ints: [2, 2] },
  });
  graph.node("Flatten", [pooled!], { axis: { i: 1 } }, ["features"]);
  graph.output("features", "float32", ["n", 4]);
  return encodeModel(graph.build({ opset: OPSET }));
}

/** `y` = x · weightᵀ; weight has a row for each output. */
export function linearModel(weight: readonly (readonly number[])[], input = "x", output = "y"): Uint8Array {
  const graph = new GraphBuilder();
  const width = weight[0]!.length;
  const x = graph.input(input, "float32", ["n", width]);
  const w = graph.initializer(float32Tensor("weight", [weight.length, width], weight.flat()));
  graph.node("Gemm", [x, w], { transB: { i: 1 } }, [output]);
  graph.output(output, "float32", ["n", weight.length]);
  return encodeModel(graph.build({ opset: OPSET }));
}

/** Mean of a square gray image of any batch as the logits of "dark" and "light": 8·(0.5 − mean) and its opposite. */
export function brightnessOf(size: number, batch: number | string = "n"): Uint8Array {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", [batch, 1, size, size]);
  const [flat] = graph.node("Flatten", [image], { axis: { i: 1 } });
  const pixels = size * size;
  const row = (value: number): number[] => new Array<number>(pixels).fill(value / pixels);
  const weight = graph.initializer(float32Tensor("weight", [2, pixels], [...row(-8), ...row(8)]));
  const bias = graph.initializer(float32Tensor("bias", [2], [4, -4]));
  graph.node("Gemm", [flat!, weight, bias], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [batch, 2]);
  return encodeModel(graph.build({ opset: OPSET }));
}

/**
 * A detector that always finds the same boxes (corners in 0..1 of its input, one label): `scores` and `boxes` of the `ultraface` format. The
 * image counts for nothing, so that what is cut is known.
 */
export function fixedBoxesModel(
  size: number,
  channels: number,
  boxes: readonly (readonly [number, number, number, number])[],
  scores: readonly number[],
): Uint8Array {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", [1, channels, size, size]);
  const zero = graph.initializer(float32Tensor("zero", [], [0]));
  const axes = graph.initializer(int64Tensor("axes", [4], [0, 1, 2, 3]));
  const [sum] = graph.node("ReduceSum", [image, axes], { keepdims: { i: 0 } });
  const [nothing] = graph.node("Mul", [sum!, zero]);
  const count = boxes.length;
  const known = graph.initializer(float32Tensor("known", [1, count, 4], boxes.flat()));
  const pairs = scores.flatMap((score) => [1 - score, score]);
  const sure = graph.initializer(float32Tensor("sure", [1, count, 2], pairs));
  graph.node("Add", [known, nothing!], {}, ["boxes"]);
  graph.node("Add", [sure, nothing!], {}, ["scores"]);
  graph.output("boxes", "float32", [1, count, 4]);
  graph.output("scores", "float32", [1, count, 2]);
  return encodeModel(graph.build({ opset: OPSET }));
}

export function boxesHead(more: { scoreThreshold?: number } = {}): HeadDraft {
  return {
    name: "things",
    kind: "detection",
    format: "ultraface",
    boxes: "boxes",
    scores: "scores",
    labels: ["thing"],
    scoreThreshold: more.scoreThreshold ?? 0.5,
    iouThreshold: 0.9,
  };
}

/** Mean of a window, and how often the model ran since its state was zero: `level` and `count` [1, 1], state `was` → `now`. */
export function countingModel(length: number): Uint8Array {
  const graph = new GraphBuilder();
  const window = graph.input("window", "float32", [1, length]);
  const was = graph.input("was", "float32", [1, 1]);
  const one = graph.initializer(float32Tensor("one", [1, 1], [1]));
  graph.node("ReduceMean", [window], { axes: { ints: [1] }, keepdims: { i: 1 } }, ["level"]);
  graph.node("Add", [was, one], {}, ["now"]);
  graph.node("Identity", ["now"], {}, ["count"]);
  for (const name of ["level", "now", "count"]) graph.output(name, "float32", [1, 1]);
  return encodeModel(graph.build({ opset: OPSET }));
}

export function windowInput(length: number, context = 0): ManifestInput["inputs"][number] {
  return {
    kind: "window",
    name: "window",
    length,
    hop: length,
    context,
    sampleRateHz: 16_000,
    normalization: "none",
    dims: [1, length + context],
  };
}

export const COUNT_STATE: ManifestInput["inputs"][number] = {
  kind: "state",
  name: "was",
  output: "now",
  dims: [1, 1],
};
