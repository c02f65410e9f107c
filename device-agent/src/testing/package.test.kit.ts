import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeModel, float32Tensor, GraphBuilder, int64Tensor, tensorToBytes } from "@fieldloop/runtime";
import { type ManifestDraft, type ModelPackage, writePackage } from "@fieldloop/runtime/node";

export async function scratchFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "fieldloop-agent-"));
  return { path, remove: () => rm(path, { recursive: true, force: true, maxRetries: 3 }) };
}

const SIZE = 8;
const PIXELS = SIZE * SIZE;

export interface TestPackageOptions {
  readonly version: number;
  /** `brightness` by default. */
  readonly model?: string;
  /** Takes any number of images at once. */
  readonly dynamicBatch?: boolean;
  /** A graph that never comes to an end on an image without black pixels. */
  readonly endlessWithoutBlack?: boolean;
  /** A variant of 8 bits beside the first: the same file under another name. */
  readonly withInt8?: boolean;
  /** The variant in floats takes a thousand times as long as it has to. */
  readonly slowFloats?: boolean;
  /** What the variant may cost, by device class. */
  readonly budgets?: ManifestDraft["variants"][number]["budgets"];
  /** Added to the expected logits of the golden case: above 0.1 it fails. */
  readonly goldenError?: number;
  /** Mean brightness from which an image is light; 0.5 by default. Without a golden case where it is another. */
  readonly lightFrom?: number;
  /** Its names for `dark` and `light`. */
  readonly labels?: readonly [string, string];
  /**
   * A graph that ONNX Runtime 1.30 dies of (SIGFPE) when no pixel is black: `TopK` over no rows. Warm-up and golden case
   * have black pixels, so the self test passes.
   */
  readonly deadlyWithoutBlack?: boolean;
}

/** A flag that no processor has: only who asks for it gets it. */
const INT8_VARIANT: ManifestDraft["variants"][number] = {
  name: "int8",
  file: "int8.onnx",
  precision: "int8",
  opset: 17,
  executionProviders: ["cpu"],
  cpuFlags: ["none-has-it"],
};

/** Mean brightness of an 8×8 gray image as two logits, `dark` and `light`. */
export async function writeTestPackage(
  directory: string,
  options: TestPackageOptions,
): Promise<ModelPackage> {
  const input = Float32Array.from({ length: PIXELS }, (_, index) => (index % 4 === 0 ? 0 : 1));
  const error = options.goldenError ?? 0;
  // Each version is another function: its files are its own.
  const bias = options.version / 1000;
  const expected = Float32Array.from([-2 + bias + error, 2]);
  const draft: ManifestDraft = {
    schema: 1,
    model: options.model ?? "brightness",
    version: options.version,
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
        kind: "classification",
        name: "class",
        output: "logits",
        labels: [...(options.labels ?? ["dark", "light"])],
        values: "logits",
      },
    ],
    signals: ["entropy", "margin", "energy", "brightness"],
    variants: [
      {
        name: "fp32",
        file: "fp32.onnx",
        precision: "fp32",
        opset: 17,
        executionProviders: ["cpu"],
        ...(options.budgets === undefined ? {} : { budgets: options.budgets }),
      },
      ...(options.withInt8 === true ? [INT8_VARIANT] : []),
    ],
    golden:
      options.lightFrom === undefined
        ? [
            {
              name: "half black",
              inputs: [
                { file: "golden/in.bin", name: "image", elementType: "float32", dims: [1, 1, SIZE, SIZE] },
              ],
              outputs: [{ file: "golden/out.bin", name: "logits", elementType: "float32", dims: [1, 2] }],
              tolerance: { fp32: { absolute: 0.1, relative: 0 }, int8: { absolute: 0.1, relative: 0 } },
            },
          ]
        : [],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  const model = brightnessModel(bias, options);
  return writePackage(directory, draft, {
    "fp32.onnx": options.slowFloats === true ? brightnessModel(bias, options, true) : model,
    ...(options.withInt8 === true ? { "int8.onnx": model } : {}),
    ...(options.lightFrom === undefined
      ? {
          "golden/in.bin": tensorToBytes({ type: "float32", dims: [1, 1, SIZE, SIZE], data: input }),
          "golden/out.bin": tensorToBytes({ type: "float32", dims: [1, 2], data: expected }),
        }
      : {}),
  });
}

function brightnessModel(darkBias: number, options: TestPackageOptions, isSlow = false): Uint8Array {
  const graph = new GraphBuilder();
  const batch = options.dynamicBatch === true ? "batch" : 1;
  const image = graph.input("image", "float32", [batch, 1, SIZE, SIZE]);
  const [flat] = graph.node("Flatten", [image], { axis: { i: 1 } });
  const perPixel = (value: number): number[] => new Array<number>(PIXELS).fill(value / PIXELS);
  const weight = graph.initializer(float32Tensor("weight", [2, PIXELS], [...perPixel(-8), ...perPixel(8)]));
  const turn = 8 * (options.lightFrom ?? 0.5);
  const bias = graph.initializer(float32Tensor("bias", [2], [turn + darkBias, -turn]));
  const { deadlyWithoutBlack = false, endlessWithoutBlack = false } = options;
  const plain = deadlyWithoutBlack || endlessWithoutBlack || isSlow ? "plain" : "logits";
  graph.node("Gemm", [flat!, weight, bias], { transB: { i: 1 } }, [plain]);
  if (deadlyWithoutBlack) addTopKOverBlackPixels(graph, flat!);
  else if (endlessWithoutBlack) addLoopOverBlackPixels(graph, flat!);
  else if (isSlow) addWork(graph, flat!);
  graph.output("logits", "float32", [batch, 2]);
  return encodeModel(graph.build({ opset: 17 }));
}

const WORK_SIDE = 512;
const WORK_LAYERS = 16;

/** Adds 0 · the end of a chain of matrix products: milliseconds of work for nothing. */
function addWork(graph: GraphBuilder, flat: string): void {
  const zeros = (count: number): number[] => new Array<number>(count).fill(0);
  const wide = graph.initializer(
    float32Tensor("wide", [PIXELS * WORK_SIDE, PIXELS], zeros(PIXELS * PIXELS * WORK_SIDE)),
  );
  const shape = graph.initializer(int64Tensor("square", [2], [PIXELS, WORK_SIDE]));
  const layer = graph.initializer(
    float32Tensor("layer", [WORK_SIDE, WORK_SIDE], zeros(WORK_SIDE * WORK_SIDE)),
  );
  const [spread] = graph.node("Gemm", [flat, wide], { transB: { i: 1 } });
  let [value] = graph.node("Reshape", [spread!, shape]);
  for (let count = 0; count < WORK_LAYERS; count++) [value] = graph.node("MatMul", [value!, layer]);
  const axes = graph.initializer(int64Tensor("both", [2], [0, 1]));
  const [nothing] = graph.node("ReduceSum", [value!, axes], { keepdims: { i: 0 } });
  graph.node("Add", ["plain", nothing!], {}, ["logits"]);
}

/** Adds 0 · the result of a loop that goes on for ever where no pixel is black. */
function addLoopOverBlackPixels(graph: GraphBuilder, flat: string): void {
  const limit = graph.initializer(float32Tensor("limit", [], [0.001]));
  const zero = graph.initializer(float32Tensor("zero", [], [0]));
  const [least] = graph.node("ReduceMin", [flat], { keepdims: { i: 0 } });
  const [bright] = graph.node("Less", [limit, least!]);
  const body = new GraphBuilder();
  body.input("turn", "int64", []);
  const condition = body.input("condition", "bool", []);
  const carried = body.input("carried", "float32", []);
  body.node("Identity", [condition], {}, ["goes_on"]);
  body.node("Identity", [carried], {}, ["carried_on"]);
  body.output("goes_on", "bool", []);
  body.output("carried_on", "float32", []);
  const { graph: inner } = body.build({ opset: 17 });
  const [result] = graph.node("Loop", ["", bright!, zero], { body: { g: inner! } });
  graph.node("Add", ["plain", result!], {}, ["logits"]);
}

const WINDOW = 256;

/** Mean of the magnitudes of a window of `length` (256) samples as two logits, `quiet` and `loud`. */
export async function writeWindowPackage(
  directory: string,
  options: Pick<TestPackageOptions, "version" | "model"> & { readonly length?: number },
): Promise<ModelPackage> {
  const { length = WINDOW } = options;
  const bias = options.version / 1000;
  const graph = new GraphBuilder();
  const window = graph.input("window", "float32", [1, length]);
  const [magnitudes] = graph.node("Abs", [window]);
  const part = (value: number): number[] => new Array<number>(length).fill(value / length);
  const weight = graph.initializer(float32Tensor("weight", [2, length], [...part(-4), ...part(4)]));
  const offset = graph.initializer(float32Tensor("offset", [2], [2 + bias, -2]));
  graph.node("Gemm", [magnitudes!, weight, offset], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [1, 2]);
  const input = new Float32Array(length).fill(-1);
  const expected = Float32Array.from([-2 + bias, 2]);
  const draft: ManifestDraft = {
    schema: 1,
    model: options.model ?? "loudness",
    version: options.version,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "window",
        name: "window",
        length,
        hop: length / 2,
        sampleRateHz: 2560,
        normalization: "none",
        dims: [1, length],
      },
    ],
    heads: [
      {
        kind: "classification",
        name: "class",
        output: "logits",
        labels: ["quiet", "loud"],
        values: "logits",
      },
    ],
    signals: ["entropy", "margin"],
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [
      {
        name: "full",
        inputs: [{ file: "golden/in.bin", name: "window", elementType: "float32", dims: [1, length] }],
        outputs: [{ file: "golden/out.bin", name: "logits", elementType: "float32", dims: [1, 2] }],
        tolerance: { fp32: { absolute: 0.1, relative: 0 } },
      },
    ],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(directory, draft, {
    "fp32.onnx": encodeModel(graph.build({ opset: 17 })),
    "golden/in.bin": tensorToBytes({ type: "float32", dims: [1, length], data: input }),
    "golden/out.bin": tensorToBytes({ type: "float32", dims: [1, 2], data: expected }),
  });
}

/**
 * A signal of single samples whose sum is carried from frame to frame: `much` from a sum of `muchFrom` (3) on, `little` below. What came
 * before shows in every result.
 */
export async function writeSumPackage(
  directory: string,
  { version = 1, muchFrom = 3 }: { readonly version?: number; readonly muchFrom?: number } = {},
): Promise<ModelPackage> {
  const graph = new GraphBuilder();
  const sample = graph.input("sample", "float32", [1, 1]);
  const before = graph.input("before", "float32", [1, 1]);
  const weight = graph.initializer(float32Tensor("weight", [1, 2], [0, 2]));
  const bias = graph.initializer(float32Tensor("bias", [2], [2 * muchFrom - 1, 0]));
  graph.node("Add", [sample, before], {}, ["sum"]);
  graph.node("Gemm", ["sum", weight, bias], {}, ["logits"]);
  graph.output("logits", "float32", [1, 2]);
  graph.output("sum", "float32", [1, 1]);
  const draft: ManifestDraft = {
    schema: 1,
    model: "sum",
    version,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "window",
        name: "sample",
        length: 1,
        hop: 1,
        sampleRateHz: 10,
        normalization: "none",
        dims: [1, 1],
      },
      { kind: "state", name: "before", output: "sum", dims: [1, 1] },
    ],
    heads: [
      {
        kind: "classification",
        name: "class",
        output: "logits",
        labels: ["little", "much"],
        values: "logits",
      },
    ],
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(directory, draft, { "fp32.onnx": encodeModel(graph.build({ opset: 17 })) });
}

/** Adds 0 · (the sum of the best of each black pixel's row) to the logits. */
function addTopKOverBlackPixels(graph: GraphBuilder, flat: string): void {
  const limit = graph.initializer(float32Tensor("limit", [], [0.001]));
  const one = graph.initializer(int64Tensor("one", [1], [1]));
  const zero = graph.initializer(float32Tensor("zero", [], [0]));
  const axes = graph.initializer(int64Tensor("axes", [2], [0, 1]));
  const [isBlack] = graph.node("Less", [flat, limit]);
  const [places] = graph.node("NonZero", [isBlack!]);
  const [rows] = graph.node("Transpose", [places!], { perm: { ints: [1, 0] } });
  const [values] = graph.node("Cast", [rows!], { to: { i: 1 } });
  const [best] = graph.node("TopK", [values!, one], { axis: { i: 1 } }, 2);
  const [sum] = graph.node("ReduceSum", [best!, axes], { keepdims: { i: 0 } });
  const [nothing] = graph.node("Mul", [sum!, zero]);
  graph.node("Add", ["plain", nothing!], {}, ["logits"]);
}
