import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { emptyStatistics } from "@fieldloop/protocol";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { tensorToBytes } from "../package/tensor-bytes.js";
import { encodeBaseline } from "../profile/baseline.js";
import type { ModelPackage } from "./package.js";
import { writePackage, type ManifestDraft } from "./write-package.js";

/** A scratch folder; `remove` deletes it. */
export async function scratchFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "fieldloop-test-"));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

const SIZE = 4;
const PIXELS = SIZE * SIZE;

/**
 * A classifier of 4×4 gray images, 0..1: "dark" has logit 8·(0.5 − mean), "light" `gain` times its opposite; the embedding
 * is [mean, 1 − mean].
 */
function brightnessModel(gain: number): Uint8Array {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", [1, 1, SIZE, SIZE]);
  const [flat] = graph.node("Flatten", [image], { axis: { i: 1 } });
  const perPixel = (value: number): number[] => new Array<number>(PIXELS).fill(value / PIXELS);
  const weight = graph.initializer(
    float32Tensor("weight", [2, PIXELS], [...perPixel(-8), ...perPixel(8 * gain)]),
  );
  const bias = graph.initializer(float32Tensor("bias", [2], [4, -4 * gain]));
  graph.node("Gemm", [flat!, weight, bias], { transB: { i: 1 } }, ["logits"]);
  const spread = graph.initializer(float32Tensor("spread", [2, PIXELS], [...perPixel(1), ...perPixel(-1)]));
  const offset = graph.initializer(float32Tensor("offset", [2], [0, 1]));
  graph.node("Gemm", [flat!, spread, offset], { transB: { i: 1 } }, ["embedding"]);
  graph.output("logits", "float32", [1, 2]);
  graph.output("embedding", "float32", [1, 2]);
  return encodeModel(graph.build({ opset: 17 }));
}

export interface BrightnessOptions {
  /** 1 unless another version is wanted that sees more things as light. */
  readonly gain?: number;
  readonly version?: number;
  readonly signals?: NonNullable<ManifestDraft["signals"]>;
  /** Added to the expected logits of the golden case. */
  readonly goldenError?: number;
}

/** The files and the manifest of a package around {@link brightnessModel}. */
export function brightnessDraft(options: BrightnessOptions = {}): {
  draft: ManifestDraft;
  files: Record<string, Uint8Array>;
} {
  const error = options.goldenError ?? 0;
  const input = Float32Array.from({ length: PIXELS }, () => 0.75);
  const gain = options.gain ?? 1;
  const expected = Float32Array.from([-2 + error, 2 * gain]);
  const draft: ManifestDraft = {
    schema: 1,
    model: "brightness",
    version: options.version ?? 1,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "image",
        name: "image",
        width: SIZE,
        height: SIZE,
        colour: "gray",
        resize: "stretch",
        layout: "nchw",
        range: "unit",
      },
    ],
    heads: [
      {
        name: "class",
        kind: "classification",
        output: "logits",
        labels: ["dark", "light"],
        values: "logits",
      },
      { name: "embedding", kind: "embedding", output: "embedding", length: 2 },
    ],
    signals: options.signals ?? ["margin", "entropy", "energy", "novelty", "brightness"],
    variants: [
      { name: "fp32", file: "model.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [
      {
        name: "three-quarters",
        inputs: [{ name: "image", file: "golden/in.bin", elementType: "float32", dims: [1, 1, SIZE, SIZE] }],
        outputs: [{ name: "logits", file: "golden/out.bin", elementType: "float32", dims: [1, 2] }],
        tolerance: { fp32: { absolute: 1e-4, relative: 0 } },
      },
    ],
    baseline: { file: "baseline.cbor" },
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  const files = {
    "model.onnx": brightnessModel(gain),
    "golden/in.bin": tensorToBytes({ type: "float32", dims: [PIXELS], data: input }),
    "golden/out.bin": tensorToBytes({ type: "float32", dims: [2], data: expected }),
    "baseline.cbor": encodeBaseline({
      statistics: emptyStatistics(),
      novelty: { centroids: Float32Array.from([0, 1]), count: 1, length: 2, median: 0.5 },
    }),
  };
  return { draft, files };
}

export async function writeBrightnessPackage(
  dir: string,
  options: BrightnessOptions = {},
): Promise<ModelPackage> {
  const { draft, files } = brightnessDraft(options);
  return writePackage(dir, draft, files);
}

/** A package whose every run multiplies large matrices for tens of milliseconds: to be in the middle of a run. */
export async function writeSlowPackage(dir: string): Promise<ModelPackage> {
  const width = 512;
  const graph = new GraphBuilder();
  let at = graph.input("x", "float32", [width, width]);
  const weight = graph.initializer(
    float32Tensor("weight", [width, width], new Array<number>(width * width).fill(1 / width)),
  );
  for (let step = 0; step < 12; step++) [at] = graph.node("MatMul", [at, weight]) as [string];
  const axes = { keepdims: { i: 0 }, axes: { ints: [0] } };
  graph.node("ReduceMean", [at], axes, ["y"]);
  graph.output("y", "float32", [width]);
  const draft: ManifestDraft = {
    schema: 1,
    model: "slow",
    version: 1,
    created: "2026-11-20T00:00:00Z",
    task: "embedding",
    licence: "Apache-2.0",
    inputs: [{ kind: "tensor", name: "x", elementType: "float32", dims: [width, width] }],
    heads: [{ name: "mean", kind: "embedding", output: "y", length: width }],
    variants: [
      { name: "fp32", file: "model.onnx", precision: "fp32", opset: 13, executionProviders: ["cpu"] },
    ],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(dir, draft, { "model.onnx": encodeModel(graph.build({ opset: 13 })) });
}
