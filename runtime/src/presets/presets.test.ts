import { describe, expect, it } from "vitest";
import type { TensorInfo } from "../backend.js";
import type { ModelSignature, PresetOptions } from "./preset.js";
import { PRESETS, PRESET_NAMES, applyPreset, suggestPreset } from "./presets.js";

const float = (name: string, dims: (number | string)[]): TensorInfo => ({ name, type: "float32", dims });
const signature = (inputs: TensorInfo[], outputs: TensorInfo[]): ModelSignature => ({ inputs, outputs });

const mnist = signature([float("in", [1, 1, 28, 28])], [float("out", [1, 10])]);
const photos = signature(
  [float("in", ["n", 3, -1, -1])],
  [float("out", ["n", 3]), float("features", ["n", 64])],
);
const table = signature([float("in", ["n", 4])], [float("out", ["n", 3])]);
const faces = signature(
  [float("in", [1, 3, 240, 320])],
  [float("scores", [1, 4420, 2]), float("boxes", [1, 4420, 4])],
);
const vibration = signature([float("in", ["n", 256])], [float("code", ["n", 8]), float("out", ["n", 256])]);

describe("presets turn signatures into manifests", () => {
  it("classifier of images with a size given, in the other channel order", () => {
    const options = {
      width: 32,
      height: 24,
      colour: "bgr",
      labels: ["a", "b", "c"],
      mean: [1, 2, 3],
    } as const;
    const result = applyPreset("classifier-logits", photos, options);
    expect(result.inputs[0]).toMatchObject({
      kind: "image",
      layout: "nchw",
      width: 32,
      height: 24,
      colour: "bgr",
      mean: [1, 2, 3],
    });
    expect(result.heads).toMatchObject([
      { kind: "classification", output: "out", labels: ["a", "b", "c"], values: "logits" },
    ]);
    expect(result.signals).toEqual(["margin", "entropy", "energy", "instability", "brightness"]);
  });
  it("classifier with an embedding", () => {
    const result = applyPreset("classifier-logits", photos, {
      width: 8,
      height: 8,
      embeddingOutput: "features",
    });
    expect(result.heads[1]).toEqual({ name: "embedding", kind: "embedding", output: "features", length: 64 });
  });
  it("an embedding of integers with its own scale", () => {
    const result = applyPreset(
      "classifier-logits",
      {
        ...signature(
          [float("in", [1, 3, 8, 8])],
          [float("out", [1, 2]), { name: "features", type: "uint8", dims: [1, 64] }],
        ),
        quantization: { features: { scale: 0.5, zeroPoint: 7 } },
      },
      { embeddingOutput: "features" },
    );
    expect(result.heads[1]).toMatchObject({ quantization: { scale: 0.5, zeroPoint: 7 } });
  });
  it("classifier of images with channels last", () => {
    const last = signature([float("in", [1, 24, 32, 3])], [float("out", [1, 2])]);
    expect(applyPreset("classifier-softmax", last).inputs[0]).toMatchObject({
      layout: "nhwc",
      width: 32,
      height: 24,
    });
  });
  it("classifier of tables, without energy from probabilities", () => {
    const result = applyPreset("classifier-softmax", table);
    expect(result.inputs[0]).toEqual({ kind: "tensor", name: "in", elementType: "float32", dims: [0, 4] });
    expect(result.heads).toMatchObject([{ labels: ["0", "1", "2"], values: "probabilities" }]);
    expect(result.signals).toEqual(["margin", "entropy", "instability"]);
  });
  it("mnist", () => {
    expect(applyPreset("mnist", mnist).inputs[0]).toMatchObject({
      kind: "image",
      colour: "gray",
      range: "byte",
      width: 28,
    });
  });
  it("ultraface", () => {
    const result = applyPreset("ultraface", faces);
    expect(result.inputs[0]).toMatchObject({
      width: 320,
      height: 240,
      colour: "rgb",
      range: "byte",
      mean: [127],
      std: [128],
    });
    expect(result.heads).toMatchObject([
      { kind: "detection", format: "ultraface", boxes: "boxes", scores: "scores", labels: ["face"] },
    ]);
  });
  it("autoencoder", () => {
    const result = applyPreset("anomaly-autoencoder", vibration, {
      threshold: 0.4,
      sampleRateHz: 2560,
      hop: 128,
    });
    expect(result.inputs[0]).toMatchObject({
      kind: "window",
      length: 256,
      hop: 128,
      sampleRateHz: 2560,
      dims: [1, 256],
    });
    expect(result.heads).toMatchObject([{ kind: "anomaly", output: "out", threshold: 0.4 }]);
  });
  it("tensor", () => {
    const result = applyPreset("tensor", vibration);
    expect(result.heads).toMatchObject([
      { output: "code", length: 8 },
      { output: "out", length: 256 },
    ]);
  });
});

const recurrent = signature(
  [float("window", [1, 16]), float("h0", [1, "batch", 4]), { name: "rate", type: "int64", dims: [] }],
  [float("level", [1, 1]), float("hn", [1, "batch", 4])],
);

describe("state and constants", () => {
  it("are taken out of what a preset sees, and stand behind its own inputs", () => {
    const options = { states: { h0: "hn" }, constants: { rate: 100 }, targets: [{ name: "level" }] };
    const { inputs, heads } = applyPreset("regression", recurrent, options);
    expect(inputs.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
      "tensor window",
      "state h0",
      "constant rate",
    ]);
    expect(inputs.slice(1)).toEqual([
      { kind: "state", name: "h0", output: "hn", elementType: "float32", dims: [1, 0, 4] },
      { kind: "constant", name: "rate", elementType: "int64", dims: [], values: [100] },
    ]);
    expect(heads).toMatchObject([{ kind: "regression", output: "level" }]);
    expect(suggestPreset(recurrent, options)).toContain("regression");
  });
});

describe("tensor", () => {
  it("describes a model that no head reads as a backbone", () => {
    const text = signature(
      [{ name: "text", type: "string", dims: [1] }],
      [{ name: "words", type: "string", dims: ["n"] }],
    );
    expect(applyPreset("tensor", text)).toMatchObject({ task: "pipeline", heads: [] });
    expect(suggestPreset(text)).toEqual(["tensor"]);
  });
});

describe("presets refuse", () => {
  it.each<[string, string, ModelSignature, PresetOptions, string]>([
    ["an unknown name", "yolo", mnist, {}, "preset_unknown"],
    ["a name of every object", "toString", mnist, {}, "preset_unknown"],
    ["mnist of another size", "mnist", faces, {}, "package_incompatible"],
    ["faces without boxes", "ultraface", mnist, {}, "package_incompatible"],
    [
      "faces with more classes than labels",
      "ultraface",
      faces,
      { labels: ["a", "b"] },
      "package_incompatible",
    ],
    ["an open image size", "classifier-logits", photos, {}, "invalid_argument"],
    ["another size than the file's", "mnist", mnist, { width: 29 }, "invalid_argument"],
    ["two labels for ten outputs", "mnist", mnist, { labels: ["a", "b"] }, "invalid_argument"],
    ["an autoencoder without a threshold", "anomaly-autoencoder", vibration, {}, "invalid_argument"],
    [
      "an autoencoder that gives another length",
      "anomaly-autoencoder",
      table,
      { threshold: 1 },
      "package_incompatible",
    ],
    [
      "a classifier of two inputs",
      "classifier-logits",
      { ...table, inputs: [...table.inputs, ...mnist.inputs] },
      {},
      "package_incompatible",
    ],
    [
      "an embedding that is not there",
      "classifier-logits",
      table,
      { embeddingOutput: "x" },
      "package_incompatible",
    ],
    [
      "an embedding of open length",
      "tensor",
      signature([float("in", [1])], [float("out", ["n", "m"])]),
      { embeddingOutput: "out" },
      "package_incompatible",
    ],
    ["state of an input that is not there", "tensor", recurrent, { states: { x: "hn" } }, "invalid_argument"],
    [
      "state from an output that is not there",
      "tensor",
      recurrent,
      { states: { h0: "x" } },
      "invalid_argument",
    ],
    ["half of a whole number", "tensor", recurrent, { constants: { rate: 0.5 } }, "invalid_argument"],
  ])("%s", (_, name, given, options, code) => {
    expect(() => applyPreset(name, given, options)).toThrow(expect.objectContaining({ code }));
  });
  it("have a title each", () => {
    for (const name of PRESET_NAMES) expect(PRESETS[name].title.length).toBeGreaterThan(10);
  });
});
