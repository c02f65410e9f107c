import { headSchema, inputSchema } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import type { TensorInfo } from "../backend.js";
import { GraphBuilder } from "../onnx/builder.js";
import { float32Tensor, scalarFloat32Tensor, scalarInt8Tensor } from "../onnx/tensor.js";
import { describeModel } from "./boundary.js";
import { COCO_KEYPOINTS, COCO_LABELS, KEYWORD_LABELS } from "./labels.js";
import type { ModelSignature, PresetOptions } from "./preset.js";
import { applyPreset, suggestPreset } from "./presets.js";

type Dims = (number | string)[];
const float = (name: string, dims: Dims): TensorInfo => ({ name, type: "float32", dims });
const image = (size: number | string): TensorInfo => float("images", [1, 3, size, size]);
const of = (input: TensorInfo, ...outputs: Dims[]): ModelSignature => ({
  inputs: [input],
  outputs: outputs.map((dims, at) => float(`out${at}`, dims)),
});
const anchors = { levels: [{ stride: 8, sizes: [[30, 30] as [number, number]] }] };

const TORCHVISION: ModelSignature = {
  inputs: [image(320)],
  outputs: [float("boxes", ["n", 4]), { name: "labels", type: "int64", dims: ["n"] }, float("scores", ["n"])],
};

const FAMILIES: [preset: string, signature: ModelSignature, head: object, options?: PresetOptions][] = [
  ["yolov8", of(image(640), [1, 84, 8400]), { format: "yolov8", labels: COCO_LABELS }],
  [
    "yolov8-pose",
    of(image(640), [1, 56, 8400]),
    { format: "yolov8", labels: ["person"], keypoints: { labels: COCO_KEYPOINTS } },
  ],
  [
    "yolov8-seg",
    of(image(640), [1, 116, 8400], [1, 32, 160, 160]),
    { format: "yolov8", labels: COCO_LABELS, masks: { prototypes: "out1", count: 32 } },
  ],
  ["yolov5", of(image(640), [1, 25200, 85]), { format: "yolov5", labels: COCO_LABELS }],
  ["yolox", of(image(416), [1, 3549, 85]), { format: "yolox", strides: [8, 16, 32] }],
  ["yolov10", of(image(640), [1, 300, 6]), { format: "yolov10", suppression: "none", labels: COCO_LABELS }],
  [
    "rtdetr",
    of(image(640), [1, 300, 80], [1, 300, 4]),
    { format: "rtdetr", scores: "out0", boxes: "out1", values: "logits", suppression: "none" },
  ],
  ["rtdetr", of(image(640), [1, 300, 84]), { format: "rtdetr", values: "probabilities" }],
  ["fastestdet", of(image(352), [1, 85, 22, 22]), { format: "fastestdet", labels: COCO_LABELS }],
  [
    "retinaface",
    of(image(640), [1, 16800, 4], [1, 16800, 2], [1, 16800, 10]),
    { format: "ssd", keypoints: { output: "out2", scored: false } },
  ],
  ["ssd", of(image(320), [1, 1600, 4], [1, 1600, 3]), { format: "ssd", labels: ["0", "1"] }, { anchors }],
  ["segmentation", of(image(64), [1, 3, 32, 32]), { kind: "segmentation", values: "logits", layout: "nchw" }],
  ["segmentation", of(image(64), [1, 32, 32, 4]), { kind: "segmentation", layout: "nhwc" }],
  [
    "keypoints",
    of(image(192), [1, 17, 48, 48]),
    { kind: "keypoints", format: "heatmap", labels: COCO_KEYPOINTS },
  ],
  ["keypoints", of(image(192), [1, 1, 17, 3]), { kind: "keypoints", format: "coordinates", values: 3 }],
  ["keypoints", of(image(192), [1, 1, 17, 3]), { order: "yx" }],
  ["keypoints", of(image(192), [1, 1, 17, 3]), { order: "xy" }, { order: "xy" }],
  ["detections", TORCHVISION, { format: "listed", firstClass: 1 }, { labels: ["cup"], firstClass: 1 }],
  ["image-to-image", of(image(64), [1, 3, 128, 128]), { kind: "image", colour: "rgb", layout: "nchw" }],
  ["regression", of(image(64), [1, 2]), { kind: "regression" }],
  ["multilabel", of(image(64), [1, 5]), { kind: "classification", activation: "sigmoid", threshold: 0.5 }],
  ["anomaly-embedding", of(image(64), [1, 128]), { kind: "anomaly", method: "embedding", threshold: 3 }],
  ["tabular-classifier", of(float("x", ["n", 4]), ["n", 3]), { kind: "classification", values: "logits" }],
  ["tabular-regressor", of(float("x", ["n", 4]), ["n", 1]), { kind: "regression" }],
  ["keywords", of(float("x", [1, 1960]), [1, 10]), { kind: "classification", labels: KEYWORD_LABELS }],
];

describe("presets of model families", () => {
  it.each(FAMILIES)("%s", (name, signature, head, options) => {
    const result = applyPreset(name, signature, options);
    expect(result.heads[0]).toMatchObject(head);
    for (const draft of result.heads) headSchema.parse(draft);
    for (const draft of result.inputs) inputSchema.parse(draft);
    expect(suggestPreset(signature, options)).toContain(name);
  });
  it("recognize the well-known ones alone", () => {
    const known = FAMILIES.filter(([name]) =>
      /^(yolo|rtdetr|detections|fastestdet|retinaface|image-to|keywords)/.test(name),
    );
    for (const [name, signature] of known) expect(suggestPreset(signature), name).toEqual([name]);
  });
  it("know the ends of published detectors", () => {
    const rtdetr = applyPreset("detections", {
      inputs: [
        float("images", ["N", 3, 640, 640]),
        { name: "orig_target_sizes", type: "int64", dims: ["N", 2] },
      ],
      outputs: [
        { name: "labels", type: "int64", dims: ["N", 300] },
        float("boxes", ["N", 300, 4]),
        float("scores", ["N", 300]),
      ],
    });
    expect(rtdetr.inputs[1]).toMatchObject({ kind: "constant", dims: [1, 2], values: [640, 640] });
    expect(rtdetr.heads[0]).toMatchObject({ boxes: "boxes", classes: "labels", labels: COCO_LABELS });
    const tensorflow: ModelSignature = {
      inputs: [{ name: "input_tensor", type: "uint8", dims: [1, 320, 320, 3] }],
      outputs: [
        float("num_detections", [1]),
        float("detection_boxes", [1, 100, 4]),
        float("detection_scores", [1, 100]),
        float("detection_classes", [1, 100]),
      ],
    };
    expect(suggestPreset(tensorflow)).toEqual(["detections"]);
    const { inputs, heads } = applyPreset("detections", tensorflow, { labels: ["person"] });
    expect(inputs[0]).toMatchObject({ range: "byte", elementType: "uint8", layout: "nhwc" });
    expect(heads[0]).toMatchObject({
      ...{ boxes: "detection_boxes", scores: "detection_scores", classes: "detection_classes" },
      ...{ corners: "yxyx", units: "unit", firstClass: 1 },
    });
    expect(() => applyPreset("detections", tensorflow)).toThrow(/give --labels/);
  });
  it("refuse a detector whose outputs are integers of several scales", () => {
    const signature: ModelSignature = {
      inputs: [image(320)],
      outputs: [
        { name: "boxes", type: "int8", dims: [1, 1600, 4] },
        { name: "scores", type: "int8", dims: [1, 1600, 3] },
      ],
      quantization: { boxes: { scale: 0.1, zeroPoint: 0 }, scores: { scale: 0.004, zeroPoint: -128 } },
    };
    expect(() => applyPreset("ssd", signature, { anchors })).toThrow(/wanted one scale; export .* float/);
    const alike = { ...signature, quantization: {} };
    const options = { anchors, outputQuantization: { scale: 0.1, zeroPoint: 0 } };
    expect(applyPreset("ssd", alike, options).heads[0]).toMatchObject({ quantization: { scale: 0.1 } });
  });
  it("take columns of a table, with their encodings", () => {
    const signature = of(float("x", ["n", 4]), ["n", 2]);
    const columns = [
      { name: "age", encoding: { kind: "number" as const, mean: 40, std: 10 } },
      { name: "kind", encoding: { kind: "one-hot" as const, categories: ["a", "b", "c"] } },
    ];
    const result = applyPreset("tabular-classifier", signature, { columns, labels: ["no", "yes"] });
    expect(result.inputs[0]).toMatchObject({ kind: "table", dims: [0, 4], columns });
    expect(() => applyPreset("tabular-classifier", signature, { columns: columns.slice(1) })).toThrow(
      /columns for the 4 numbers of a row: 1 were given, making 3/,
    );
  });
  it("carry the state of a voice detector, and its rate where the file has one", () => {
    const signature: ModelSignature = {
      inputs: [
        float("input", ["batch", "sequence"]),
        { name: "sr", type: "int64", dims: [] },
        float("state", [2, "batch", 128]),
      ],
      outputs: [float("output", ["batch", 1]), float("stateN", [2, "batch", 128])],
    };
    expect(suggestPreset(signature)).toEqual(["silero-vad"]);
    expect(applyPreset("silero-vad", signature).inputs).toMatchObject([
      { kind: "window", name: "input", length: 512, context: 64, hop: 512, dims: [1, 576] },
      { kind: "state", name: "state", output: "stateN", dims: [2, 1, 128] },
      { kind: "constant", name: "sr", elementType: "int64", dims: [], values: [16000] },
    ]);
    // A window is 32 ms at either rate, and its context 4 ms.
    expect(applyPreset("silero-vad", signature, { sampleRateHz: 8_000 }).inputs).toMatchObject([
      { length: 256, context: 32, hop: 256, sampleRateHz: 8_000, dims: [1, 288] },
      { kind: "state" },
      { values: [8000] },
    ]);
    expect(() => applyPreset("silero-vad", signature, { sampleRateHz: 44_100 })).toThrow(
      /44100 samples a second, the model knows 8000 and 16000/,
    );
  });
  it.each<[string, string, ModelSignature, RegExp]>([
    [
      "boxes that prior boxes do not make",
      "ultraface-raw",
      of(image(320), [1, 100, 4], [1, 100, 2]),
      /wanted \d+ boxes/,
    ],
    ["grids of another size", "yolox", of(image(416), [1, 100, 85]), /wanted 3549 boxes/],
    ["a detector without anchors", "ssd", of(image(320), [1, 100, 4], [1, 100, 3]), /give the anchors/],
    ["masks without prototypes", "yolov8-seg", of(image(640), [1, 116, 8400]), /and prototypes/],
    [
      "8-bit values of unknown scale",
      "keywords",
      of({ ...float("x", [1, 1960]), type: "int8" }, [1, 4]),
      /scale and a zero point/,
    ],
  ])("refuse %s", (_, name, signature, message) => {
    expect(() => applyPreset(name, signature)).toThrow(message);
  });
});

describe("what a graph tells", () => {
  it("is what its 8-bit values stand for, and what computes its outputs", () => {
    const graph = new GraphBuilder();
    const x = graph.input("x", "int8", [1, 4]);
    const scale = graph.initializer(scalarFloat32Tensor("scale", 0.25));
    const zero = graph.initializer(scalarInt8Tensor("zero", -3));
    const [real] = graph.node("DequantizeLinear", [x, scale, zero]);
    const weight = graph.initializer(float32Tensor("w", [4, 2], [1, 2, 3, 4, 5, 6, 7, 8]));
    const [logits] = graph.node("MatMul", [real!, weight], {}, ["logits"]);
    const [p] = graph.node("Softmax", [logits!]);
    graph.node("QuantizeLinear", [p!, scale, zero], {}, ["y"]);
    graph.output("y", "int8", [1, 2]);
    graph.output("logits", "float32", [1, 2]);
    const signature = describeModel(graph.build({ opset: 17 }));
    const affine = { scale: 0.25, zeroPoint: -3 };
    expect(signature.quantization).toEqual({ x: affine, y: affine });
    expect(signature.computedBy).toEqual({ y: "Softmax", logits: "MatMul" });
    expect(applyPreset("classifier-softmax", signature).heads[0]).toMatchObject({ quantization: affine });
    expect(() => applyPreset("classifier-logits", signature)).toThrow(/comes from a Softmax/);
  });
});
