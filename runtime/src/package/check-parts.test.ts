import {
  headSchema,
  inputSchema,
  tensorNameSchema,
  type FieldloopError,
  type Head,
  type ModelInput,
} from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { FramePreparer } from "../input/prepare.js";
import { checkParts } from "./check-parts.js";

const image = (more: object = {}): object => ({
  kind: "image",
  name: "image",
  width: 320,
  height: 240,
  colour: "rgb",
  resize: "stretch",
  layout: "nchw",
  range: "unit",
  ...more,
});
const sound = (more: object = {}): object => ({
  kind: "window",
  name: "sound",
  length: 16_000,
  hop: 16_000,
  sampleRateHz: 16_000,
  normalization: "none",
  dims: [],
  ...more,
});
const features = (more: object = {}): object => ({
  kind: "mel",
  frameLength: 400,
  frameHop: 160,
  fftLength: 512,
  mel: { bins: 40, lowHz: 20, highHz: 8_000 },
  ...more,
});
const fixed = (kind: string, more: object): object => ({ kind, name: "x", elementType: "float32", ...more });
const boxes = (format: string, more: object = {}): object => ({
  name: "things",
  kind: "detection",
  format,
  boxes: "boxes",
  scores: "scores",
  labels: ["thing"],
  scoreThreshold: 0.5,
  iouThreshold: 0.5,
  ...more,
});
const anchors = { levels: [{ stride: 16, sizes: [[32, 32]] }] };

function check(inputs: readonly object[], heads: readonly object[] = []): void {
  checkParts([
    {
      name: "root",
      inputs: inputs.map((input): ModelInput => inputSchema.parse(input)),
      heads: heads.map((head): Head => headSchema.parse(head)),
    },
  ]);
}

describe("inputs", () => {
  it.each([
    ["an image of 8192 × 8192", [image({ width: 8192, height: 8192 })], /201326592 values/],
    [
      "a window of a million samples of 1,024 channels",
      [sound({ length: 1 << 20, channels: 1024 })],
      /values/,
    ],
    [
      "a window that looks back for as long",
      [sound({ length: 1, context: 1 << 20, channels: 1024 })],
      /values/,
    ],
    [
      "features larger than the window that they are of",
      [sound({ length: 1 << 20, features: features({ kind: "spectrogram", frameHop: 1 }) })],
      /values/,
    ],
    [
      "a transform for every sample",
      [
        sound({
          length: 200_000,
          features: features({ frameHop: 1, mel: { bins: 1, lowHz: 20, highHz: 80 } }),
        }),
      ],
      /takes 199601 transforms of 512 samples/,
    ],
    ["dims without end", [fixed("tensor", { dims: [1 << 30, 1 << 30, 1 << 30] })], /values/],
    ["state of gigabytes", [fixed("state", { output: "y", dims: [1 << 15, 1 << 15] })], /values/],
    [
      "a text repeated ten million times",
      [fixed("constant", { elementType: "string", values: ["a"], dims: [10_000_000] })],
      /values/,
    ],
    [
      "inputs that are too much together",
      Array.from({ length: 3 }, (_, at) => fixed("tensor", { name: `x${at}`, dims: [1 << 25] })),
      /hold 100663296 values, at most 67108864 allowed together/,
    ],
  ])("refuse %s before memory is taken", (_, inputs, message) => {
    expect(() => check(inputs)).toThrow(message);
    expect(() => check(inputs)).toThrow(
      expect.objectContaining<Partial<FieldloopError>>({ code: "manifest_invalid" }),
    );
  });
  it.each([
    ["an image of 4 megapixels", image({ width: 2048, height: 2048 })],
    ["half a minute of speech", sound({ length: 480_000, features: features() })],
    ["a second of speech, whole", sound()],
    ["what is open", fixed("tensor", { dims: [0, 3, 0, 0] })],
  ])("take %s", (_, input) => {
    expect(() => check([input])).not.toThrow();
  });
  it("count features as the front-end makes them", async () => {
    const input = inputSchema.parse(sound({ features: features() }));
    const frame = { kind: "window", samples: new Float32Array(16_000) } as const;
    const noImages = async (): Promise<never> => {
      throw new Error("no decoder wanted");
    };
    const { feeds } = await new FramePreparer({ inputs: [input] }, noImages).prepare(frame);
    expect(feeds["sound"]!.data).toHaveLength(98 * 40);
  });
  it.each(["__proto__", "constructor", "toString"])("refuse the name %s", (name) => {
    expect(tensorNameSchema.safeParse(name).success).toBe(false);
  });
});

describe("heads", () => {
  it.each([
    ["ssd without anchors", boxes("ssd"), /"things" of format "ssd" wants anchors/],
    ["ssd without scores", boxes("ssd", { anchors, scores: undefined }), /names no output with scores/],
    ["ultraface without scores", boxes("ultraface", { scores: undefined }), /names no output with scores/],
    [
      "more anchors than any model has",
      boxes("ssd", {
        anchors: { levels: [{ stride: 1, sizes: Array.from({ length: 32 }, () => [8, 8]) }] },
      }),
      /has 2457600 anchors, at most 1048576 allowed/,
    ],
    [
      "points of ssd that are nowhere",
      boxes("ssd", { anchors, keypoints: { labels: ["nose"] } }),
      /names no output with its keypoints/,
    ],
    [
      "points of FastestDet",
      boxes("fastestdet", { scores: undefined, keypoints: { labels: ["nose"] } }),
      /has no place for keypoints/,
    ],
    [
      "points of YOLO in an output of their own",
      boxes("yolov8", { scores: undefined, keypoints: { labels: ["nose"], output: "points" } }),
      /only "ssd" has/,
    ],
    [
      "masks of ssd",
      boxes("ssd", { anchors, masks: { prototypes: "p", count: 32 } }),
      /has no place for masks/,
    ],
    [
      "a background that is no label",
      {
        name: "areas",
        kind: "segmentation",
        output: "y",
        values: "logits",
        labels: ["road", "sky"],
        background: "sea",
      },
      /background "sea"/,
    ],
    [
      "two means for three channels",
      {
        name: "picture",
        kind: "image",
        output: "y",
        colour: "rgb",
        layout: "nchw",
        range: "byte",
        mean: [1, 2],
      },
      /has 2 values of mean or std, wanted 1 or 3/,
    ],
  ])("refuse %s", (_, head, message) => {
    expect(() => check([image()], [head])).toThrow(message);
  });
  it("take what has its place", () => {
    const points = { labels: ["nose"] };
    const heads = [
      boxes("ssd", { anchors, keypoints: { ...points, output: "points" } }),
      boxes("ultraface"),
      boxes("yolov8", { scores: undefined, keypoints: points, masks: { prototypes: "p", count: 32 } }),
      boxes("rtdetr"),
    ];
    expect(() => check([image()], heads)).not.toThrow();
  });
  it("refuse a grid without strides", () => {
    expect(headSchema.safeParse(boxes("yolox", { strides: [] })).success).toBe(false);
  });
});
