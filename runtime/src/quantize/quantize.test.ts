import { describe, expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { checkModel } from "../onnx/check.js";
import { inspectModel } from "../onnx/inspect.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor, tensorToFloat32 } from "../onnx/tensor.js";
import { replaceInitializers } from "../onnx/writeback.js";
import { readQuantizedBase } from "./base.js";
import { requireQuality } from "./quality.js";
import { openStaticQuantizer, quantizeStatic } from "./quantize.js";
import type { Feeds, QuantizeOptions } from "./types.js";

/** Normal deviates from a seed (mulberry32 and Box-Muller), so that every figure below repeats. */
function gaussian(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Layers with weights of the usual initial size (He et al. 2015), drawn from one seed. */
class Network {
  readonly graph = new GraphBuilder();
  readonly #normal: () => number;

  constructor(seed: number) {
    this.#normal = gaussian(seed);
  }

  conv(
    input: string,
    inChannels: number,
    outChannels: number,
    size: readonly number[],
    stride = 1,
    group = 1,
  ) {
    const fanIn = (inChannels / group) * size.reduce((a, b) => a * b);
    const weight = this.#weight([outChannels, inChannels / group, ...size], fanIn);
    const half = size.map((length) => Math.floor(length / 2));
    return this.op("Conv", [input, weight, this.#weight([outChannels], 30)], {
      kernel_shape: { ints: [...size] },
      pads: { ints: [...half, ...half] },
      strides: { ints: size.map(() => stride) },
      group: { i: group },
    });
  }

  gemm(input: string, inputs: number, outputs: number, name?: string) {
    const weight = this.#weight([outputs, inputs], inputs);
    const bias = this.#weight([outputs], 30);
    return this.op("Gemm", [input, weight, bias], { transB: { i: 1 } }, name);
  }

  norm(input: string, channels: number) {
    const near = (center: number) =>
      this.graph.initializer(
        float32Tensor(
          "",
          [channels],
          Float32Array.from({ length: channels }, () => center + Math.abs(this.#normal()) / 5),
        ),
      );
    return this.op("BatchNormalization", [input, near(1), near(0), near(0), near(1)]);
  }

  op(
    opType: string,
    inputs: string[],
    attributes: Parameters<GraphBuilder["node"]>[2] = {},
    name?: string,
  ): string {
    return this.graph.node(opType, inputs, attributes, name === undefined ? 1 : [name])[0]!;
  }

  #weight(dims: number[], fanIn: number): string {
    const count = dims.reduce((a, b) => a * b);
    const scale = Math.sqrt(2 / fanIn);
    return this.graph.initializer(
      float32Tensor(
        "",
        dims,
        Float32Array.from({ length: count }, () => this.#normal() * scale),
      ),
    );
  }
}

/** Residual classifier: Conv+Relu, depthwise Conv, Add, MaxPool, AveragePool, Concat, global pooling, Gemm, Softmax. */
function classifier(seed: number): Uint8Array {
  const net = new Network(seed);
  net.graph.input("image", "float32", ["n", 3, 24, 24]);
  const stem = net.op("Relu", [net.conv("image", 3, 16, [3, 3])]);
  const six = net.graph.initializer(float32Tensor("six", [], [6]));
  const zero = net.graph.initializer(float32Tensor("zero", [], [0]));
  const depthwise = net.op("Clip", [net.conv(stem, 16, 16, [3, 3], 1, 16), zero, six]);
  const sum = net.op("Relu", [net.op("Add", [net.conv(depthwise, 16, 16, [1, 1]), stem])]);
  const pool = { kernel_shape: { ints: [2, 2] }, strides: { ints: [2, 2] } };
  const both = net.op("Concat", [net.op("MaxPool", [sum], pool), net.op("AveragePool", [sum], pool)], {
    axis: { i: 1 },
  });
  const deep = net.op("LeakyRelu", [net.norm(net.conv(both, 32, 32, [3, 3], 2), 32)], { alpha: { f: 0.1 } });
  const flat = net.op("Flatten", [net.op("GlobalAveragePool", [deep])]);
  const logits = net.gemm(flat, 32, 10);
  net.op("Softmax", [logits], { axis: { i: -1 } }, "probabilities");
  net.graph.output("probabilities", "float32", ["n", 10]);
  return encodeModel(net.graph.build({ opset: 17 }));
}

/** Segmentation-like: strided Conv, Resize, skip Concat, Conv, Sigmoid; the output keeps the image's size. */
function segmenter(seed: number): Uint8Array {
  const net = new Network(seed);
  net.graph.input("image", "float32", [1, 1, 16, 16]);
  const wide = net.op("Relu", [net.conv("image", 1, 8, [3, 3])]);
  const low = net.op("Relu", [net.conv(wide, 8, 8, [3, 3], 2)]);
  const scales = net.graph.initializer(float32Tensor("scales", [4], [1, 1, 2, 2]));
  const up = net.op("Resize", [low, "", scales], { mode: { s: "nearest" } });
  const skip = net.op("Concat", [up, wide], { axis: { i: 1 } });
  net.op("Sigmoid", [net.conv(skip, 16, 1, [1, 1])], {}, "mask");
  net.graph.output("mask", "float32", [1, 1, 16, 16]);
  return encodeModel(net.graph.build({ opset: 13 }));
}

/** Sensor windows: one-dimensional Conv, MaxPool, Transpose, MatMul. */
function windows(seed: number): Uint8Array {
  const net = new Network(seed);
  net.graph.input("window", "float32", ["n", 3, 64]);
  const first = net.op("Relu", [net.conv("window", 3, 8, [5])]);
  const pooled = net.op("MaxPool", [first], { kernel_shape: { ints: [4] }, strides: { ints: [4] } });
  const turned = net.op("Transpose", [pooled], { perm: { ints: [0, 2, 1] } });
  const normal = gaussian(seed + 1);
  const weight = net.graph.initializer(
    float32Tensor(
      "w",
      [8, 6],
      Array.from({ length: 48 }, () => normal() / 3),
    ),
  );
  net.op("MatMul", [turned, weight], {}, "features");
  net.graph.output("features", "float32", ["n", 16, 6]);
  return encodeModel(net.graph.build({ opset: 17 }));
}

function batches(name: string, dims: number[], count: number, seed: number): Feeds[] {
  const normal = gaussian(seed);
  const length = dims.reduce((a, b) => a * b);
  return Array.from({ length: count }, () => ({
    [name]: { type: "float32" as const, dims, data: Float32Array.from({ length }, normal) },
  }));
}

const SETTINGS = {
  backend: ortNode,
  fold: foldModel,
  activation: "uint8",
  weight: "int8",
  perChannel: true,
  reduceRange: false,
  method: { kind: "minmax" },
} as const satisfies Omit<QuantizeOptions, "calibration">;

test("a residual classifier keeps its answers and runs on integer kernels throughout", async () => {
  const bytes = classifier(7);
  const calibration = batches("image", [4, 3, 24, 24], 16, 8);
  const { bytes: quantized, report } = await quantizeStatic(bytes, { ...SETTINGS, calibration });
  expect(report.calibrationBatches).toBe(16);
  expect(report.outputs[0]!.topOneAgreement).toBeGreaterThan(0.96);
  expect(report.outputs[0]!.cosine).toBeGreaterThan(0.999);
  expect(Math.min(...report.layers.map((layer) => layer.cosine))).toBeGreaterThan(0.999);
  expect(report.layers.map((layer) => layer.operator)).toEqual(
    "Conv Conv Conv Add AveragePool Concat Conv LeakyRelu GlobalAveragePool Gemm".split(" "),
  );
  expect(report.kernels).toMatchObject({ float: 0, integer: 10 });
  expect(report.kernels.operators).not.toHaveProperty("Clip");
  expect(report.kernels.operators).not.toHaveProperty("Relu");
  expect(checkModel(quantized).inputs).toEqual(checkModel(bytes).inputs);
  expect(inspectModel(quantized).weights.float!.elements).toBeLessThan(500);

  const fresh = batches("image", [4, 3, 24, 24], 25, 99);
  expect(await agreement(bytes, quantized, fresh)).toBeGreaterThan(0.95);
});

test("other seeds and settings do as well", async () => {
  const calibration = batches("image", [8, 3, 24, 24], 8, 21);
  const settings: Partial<QuantizeOptions>[] = [
    { reduceRange: true },
    { perChannel: false },
    { activation: "int8" },
    { method: { kind: "percentile", percentile: 99.99 } },
  ];
  for (const [index, setting] of settings.entries()) {
    const { report } = await quantizeStatic(classifier(100 + index), {
      ...SETTINGS,
      ...setting,
      calibration,
    });
    const label = JSON.stringify(setting);
    expect(report.outputs[0]!.cosine, label).toBeGreaterThan(0.998);
    expect(report.outputs[0]!.topOneAgreement, label).toBeGreaterThan(0.9);
  }
});

test("Resize and skip connections stay on integers, the mask stays float", async () => {
  const calibration = batches("image", [1, 1, 16, 16], 32, 3);
  const { report } = await quantizeStatic(segmenter(5), { ...SETTINGS, calibration });
  expect(report.outputs[0]!.cosine).toBeGreaterThan(0.9995);
  expect(report.kernels).toMatchObject({ float: 0, integer: 4 });
  expect(report.kernels.operators.Sigmoid).toBe(1);
});

test("one-dimensional convolutions and products of rank 3 are quantized", async () => {
  const calibration = batches("window", [2, 3, 64], 32, 3);
  const { report } = await quantizeStatic(windows(5), { ...SETTINGS, calibration });
  expect(report.outputs[0]!.cosine).toBeGreaterThan(0.999);
  expect(report.kernels).toMatchObject({ float: 0, integer: 2 });
});

test("named nodes stay float, and the rest around them still works", async () => {
  const calibration = batches("image", [1, 1, 16, 16], 8, 3);
  const { bytes, report } = await quantizeStatic(segmenter(5), {
    ...SETTINGS,
    calibration,
    keepFloat: ["Conv"],
  });
  expect(report.layers.map((layer) => layer.node)).not.toContain("Conv");
  expect(report.kernels.float).toBe(1);
  expect(inspectModel(bytes).operators.Conv).toBe(3);
});

test("an output in the middle of the graph keeps its name and is read back as float", async () => {
  const model = decodeModel(segmenter(5));
  const graph = graphOf(model);
  const logits = graph.node.find((node) => node.opType === "Sigmoid")!.input[0]!;
  graph.output.push({ ...graph.output[0]!, name: logits });
  const calibration = batches("image", [1, 1, 16, 16], 8, 3);
  const { report } = await quantizeStatic(encodeModel(model), { ...SETTINGS, calibration });
  expect(report.outputs.map((output) => output.name)).toEqual(["mask", logits]);
  expect(report.outputs[1]!.cosine).toBeGreaterThan(0.999);
});

test("scales of the base version leave untouched layers byte for byte as they were", async () => {
  const bytes = classifier(7);
  const calibration = batches("image", [4, 3, 24, 24], 12, 8);
  const first = await quantizeStatic(bytes, { ...SETTINGS, calibration });
  calibration.length = 4;
  const base = readQuantizedBase(first.bytes, bytes);
  const again = await quantizeStatic(bytes, { ...SETTINGS, calibration, base });
  expect(Buffer.compare(first.bytes, again.bytes)).toBe(0);
  const unaware = await quantizeStatic(bytes, { ...SETTINGS, calibration });
  expect(Buffer.compare(first.bytes, unaware.bytes)).not.toBe(0);
});

test("near a base few levels change, and the outputs stay those of the moved weights", async () => {
  const calibration = batches("image", [1, 1, 16, 16], 16, 3);
  const first = await quantizeStatic(segmenter(5), { ...SETTINGS, calibration });
  const base = readQuantizedBase(first.bytes);
  expect(base.scales).toMatchObject(first.report.scales);

  const moved = decodeModel(segmenter(5));
  const normal = gaussian(77);
  const values = new Map<string, Float32Array>();
  for (const tensor of graphOf(moved).initializer) {
    if (tensor.dims.length !== 4) continue;
    values.set(
      tensor.name,
      tensorToFloat32(tensor).map((value) => value * (1 + normal() * 0.02)),
    );
  }
  replaceInitializers(moved, values);
  const quantizer = await openStaticQuantizer(encodeModel(moved), { ...SETTINGS, calibration, base });
  const made = async (changeCost?: number) => {
    const { bytes, report } = await quantizer.quantize([], changeCost);
    const after = readQuantizedBase(bytes).levels;
    const pairs = [...base.levels].flatMap(([name, old]) =>
      [...old].map((level, index) => [level, after.get(name)![index]]),
    );
    const changed = pairs.filter(([old, now]) => old !== now).length / pairs.length;
    return { changed, sqnrDb: report.outputs[0]!.sqnrDb };
  };
  const rounded = await made();
  const exact = await made(0);
  const cheap = await made(0.1);
  // Errors that cancel cost nothing, and leave levels where they were.
  expect(exact.sqnrDb).toBeGreaterThan(rounded.sqnrDb);
  expect(cheap.sqnrDb).toBeGreaterThan(rounded.sqnrDb);
  expect(cheap.changed).toBeLessThan(0.8 * rounded.changed);
  const dear = await made(1);
  expect(dear.sqnrDb).toBeGreaterThan(rounded.sqnrDb - 3);
  expect(dear.changed).toBeLessThan(rounded.changed / 4);
});

test("a report that misses its bound is rejected with the worst layer named", async () => {
  const calibration = batches("image", [1, 1, 16, 16], 8, 3);
  const { report } = await quantizeStatic(segmenter(5), { ...SETTINGS, calibration });
  requireQuality(report, { cosineMin: 0.999 });
  expect(() => requireQuality(report, { cosineMin: 0.9999999 })).toThrow(
    /output "mask" has cosine .* worst layer "Conv/,
  );
});

describe("refused", () => {
  const calibration = batches("image", [1, 1, 16, 16], 2, 3);

  test("calibration values that are not finite", async () => {
    const bad = batches("image", [1, 1, 16, 16], 2, 3);
    (bad[1]!.image!.data as Float32Array)[5] = Number.NaN;
    await expect(quantizeStatic(segmenter(5), { ...SETTINGS, calibration: bad })).rejects.toMatchObject({
      code: "quantization_rejected",
    });
  });

  test("a model that is quantized already, and one without calibration inputs", async () => {
    const { bytes } = await quantizeStatic(segmenter(5), { ...SETTINGS, calibration });
    await expect(quantizeStatic(bytes, { ...SETTINGS, calibration })).rejects.toThrow(/quantized already/);
    await expect(quantizeStatic(segmenter(5), { ...SETTINGS, calibration: [] })).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });

  test("a model without weights to quantize", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", [4]);
    graph.node("Tanh", ["x"], {}, ["y"]);
    graph.output("y", "float32", [4]);
    const bytes = encodeModel(graph.build({ opset: 17 }));
    await expect(quantizeStatic(bytes, { ...SETTINGS, calibration })).rejects.toMatchObject({
      code: "onnx_unsupported",
    });
  });
});

/** Share of rows on which two classifiers agree, both run as they would be in use. */
async function agreement(a: Uint8Array, b: Uint8Array, inputs: readonly Feeds[]): Promise<number> {
  const answers: number[][] = [];
  for (const bytes of [a, b]) {
    const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
    const rows: number[] = [];
    for (const feeds of inputs) {
      const { data, dims } = (await session.run(feeds))[session.outputs[0]!.name]!;
      for (let row = 0; row < dims[0]!; row++) {
        const scores = [...(data as Float32Array).subarray(row * dims[1]!, (row + 1) * dims[1]!)];
        rows.push(scores.indexOf(Math.max(...scores)));
      }
    }
    await session.release();
    answers.push(rows);
  }
  return answers[0]!.filter((answer, index) => answer === answers[1]![index]).length / answers[0]!.length;
}

describe("three channels", () => {
  test("become four where an 8-bit convolution reads an image, and the answer stays", async () => {
    const net = new Network(5);
    net.graph.input("image", "float32", [1, 3, 16, 16]);
    const at = net.op("Relu", [net.conv("image", 3, 8, [3, 3], 2)]);
    const out = net.gemm(net.op("Flatten", [net.op("GlobalAveragePool", [at])]), 8, 4, "logits");
    net.graph.output(out, "float32", [1, 4]);
    const bytes = encodeModel(net.graph.build({ opset: 17 }));
    const normal = gaussian(6);
    const image = () => Float32Array.from({ length: 3 * 16 * 16 }, normal);
    const calibration = Array.from({ length: 8 }, () => ({
      image: { type: "float32" as const, dims: [1, 3, 16, 16], data: image() },
    }));
    const { bytes: int8, report } = await quantizeStatic(bytes, { ...SETTINGS, calibration });
    const { node, initializer } = graphOf(decodeModel(int8));
    expect(node.slice(0, 2).map(({ opType }) => opType)).toEqual(["QuantizeLinear", "Pad"]);
    expect(initializer.some(({ dims }) => dims.join() === "8,4,3,3")).toBe(true);
    expect(report.kernels.float).toBe(0);
    expect(report.outputs[0]!.cosine).toBeGreaterThan(0.99);
  });
  test("stay three where the model gives those weights away", async () => {
    const net = new Network(5);
    net.graph.input("image", "float32", [1, 3, 8, 8]);
    const weight = net.graph.initializer(
      float32Tensor("weight", [8, 3, 3, 3], Float32Array.from({ length: 216 }, gaussian(7))),
    );
    net.op("Conv", ["image", weight], {}, "y");
    net.graph.output("y", "float32");
    net.graph.output(weight, "float32");
    const bytes = encodeModel(net.graph.build({ opset: 17 }));
    const calibration = batches("image", [1, 3, 8, 8], 2, 8);
    const { bytes: int8 } = await quantizeStatic(bytes, { ...SETTINGS, calibration });
    const session = await ortNode.openSession(int8, { threadCount: 1, executionProvider: "cpu" });
    expect((await session.run(calibration[0]!)).weight!.dims).toEqual([8, 3, 3, 3]);
    await session.release();
  });
});
