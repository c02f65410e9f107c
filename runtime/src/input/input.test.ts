import { inputSchema, type ImageInput, type WindowInput } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { planResize } from "./geometry.js";
import { PixelPacker } from "./pixels.js";
import { FramePreparer, zeroFeeds } from "./prepare.js";
import { windowTensor } from "./window.js";

const image = (more: Partial<ImageInput> = {}): ImageInput => ({
  kind: "image",
  name: "x",
  width: 5,
  height: 3,
  colour: "rgb",
  resize: "stretch",
  layout: "nchw",
  range: "unit",
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
  elementType: "float32",
  ...more,
});

/** The definition, pixel by pixel, in float64. */
function reference(input: ImageInput, pixels: Uint8Array, channels: number): number[] {
  const { width, height } = input;
  const outChannels = input.colour === "gray" ? 1 : 3;
  const out = new Array<number>(width * height * outChannels).fill(0);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * channels;
      const rgb = channels === 1 ? [0, 0, 0].map(() => pixels[at]!) : [...pixels.subarray(at, at + 3)];
      const luma = channels === 1 ? pixels[at]! : (77 * rgb[0]! + 150 * rgb[1]! + 29 * rgb[2]! + 128) >> 8;
      const ordered = { rgb, bgr: [...rgb].reverse(), gray: [luma] }[input.colour];
      ordered.forEach((value, channel) => {
        const mean = input.mean[input.mean.length === 1 ? 0 : channel]!;
        const std = input.std[input.std.length === 1 ? 0 : channel]!;
        const real = (value * (input.range === "unit" ? 1 / 255 : 1) - mean) / std;
        const place =
          input.layout === "nchw"
            ? channel * width * height + y * width + x
            : (y * width + x) * outChannels + channel;
        out[place] = real;
      });
    }
  }
  return out;
}

describe("pixels → tensor, against the definition", () => {
  const cases: [string, ImageInput, 1 | 3][] = [];
  for (const colour of ["rgb", "bgr", "gray"] as const) {
    for (const layout of ["nchw", "nhwc"] as const) {
      for (const channels of [1, 3] as const) {
        const scaling = colour === "gray" ? { mean: [0.5], std: [0.25] } : {};
        cases.push([`${colour} ${layout} from ${channels}`, image({ colour, layout, ...scaling }), channels]);
      }
    }
  }
  cases.push(["byte range", image({ range: "byte", mean: [127], std: [128] }), 3]);
  it.each(cases)("%s", (_, input, channels) => {
    const pixels = Uint8Array.from({ length: 15 * channels }, (_unused, at) => (at * 53 + 7) & 0xff);
    const packer = new PixelPacker(input);
    const tensor = packer.allocate();
    const brightness = packer.pack(pixels, channels, tensor);
    const expected = reference(input, pixels, channels);
    expect(tensor.data.length).toBe(expected.length);
    expected.forEach((value, at) => expect(tensor.data[at]).toBeCloseTo(value, 5));
    expect(brightness).toBeGreaterThan(0.3);
    expect(brightness).toBeLessThan(0.7);
  });
  it("says the mean of what the model sees as brightness", () => {
    const packer = new PixelPacker(image({ width: 1, height: 1 }));
    expect(packer.pack(Uint8Array.from([0, 51, 204]), 3, packer.allocate())).toBeCloseTo(1 / 3, 9);
  });
  it("rounds and clips integer tensors", () => {
    const input = image({
      width: 3,
      height: 1,
      colour: "gray",
      range: "byte",
      mean: [100],
      std: [1],
      elementType: "int8",
    });
    const packer = new PixelPacker(input);
    const tensor = packer.allocate();
    packer.pack(Uint8Array.from([0, 99, 255]), 1, tensor);
    expect(tensor).toEqual({ type: "int8", dims: [1, 1, 1, 3], data: Int8Array.from([-100, -1, 127]) });
  });
  it.each([
    ["two means for three channels", image({ mean: [1, 2] }), /2 values of mean, wanted 1 or 3/],
    ["text pixels", image({ elementType: "string" }), /element type "string"/],
  ])("refuses %s", (_, input, message) => {
    expect(() => new PixelPacker(input)).toThrow(message);
  });
});

describe("resize plans", () => {
  const size = { width: 320, height: 240 };
  it("stretch to the whole input", () => {
    expect(planResize({ ...size, resize: "stretch" }, 640, 360)).toMatchObject({
      width: 320,
      height: 240,
      left: 0,
      top: 0,
    });
  });
  it("letterbox centres and gives the way back", () => {
    const plan = planResize({ ...size, resize: "letterbox" }, 640, 360);
    expect(plan).toMatchObject({ width: 320, height: 180, left: 0, top: 30 });
    // The top edge of the picture is 30 of 240 rows down in the input.
    expect((30 / 240) * plan.geometry.scaleY + plan.geometry.offsetY).toBeCloseTo(0, 9);
    expect((210 / 240) * plan.geometry.scaleY + plan.geometry.offsetY).toBeCloseTo(1, 9);
  });
  it("crop cuts the centre and gives the way back", () => {
    const plan = planResize({ ...size, resize: "crop" }, 640, 360);
    expect(plan.crop).toEqual({ left: 80, top: 0, width: 480, height: 360 });
    expect(plan.geometry.offsetX).toBeCloseTo(80 / 640, 9);
    expect(plan.geometry.scaleX + plan.geometry.offsetX).toBeCloseTo(560 / 640, 9);
  });
  it("never plan an empty picture", () => {
    expect(planResize({ ...size, resize: "letterbox" }, 100_000, 1)).toMatchObject({ width: 320, height: 1 });
    expect(planResize({ ...size, resize: "crop" }, 1, 100_000).crop).toMatchObject({ width: 1, height: 1 });
  });
});

const window = (more: Partial<WindowInput> = {}): WindowInput => ({
  kind: "window",
  name: "w",
  length: 4,
  channels: 1,
  hop: 2,
  context: 0,
  elementType: "float32",
  sampleRateHz: 10,
  normalization: "none",
  mean: 0,
  std: 1,
  dims: [],
  ...more,
});

describe("windows", () => {
  const samples = Float32Array.from([1, 3, 5, 7]);
  it.each([
    ["none", window(), [1, 3, 5, 7]],
    ["fixed", window({ normalization: "fixed", mean: 3, std: 2 }), [-1, 0, 1, 2]],
    ["zscore", window({ normalization: "zscore" }), [-3, -1, 1, 3].map((value) => value / Math.sqrt(5))],
  ])("%s normalization", (_, input, expected) => {
    const tensor = windowTensor(input, samples);
    expect(tensor.dims).toEqual([1, 4]);
    expected.forEach((value, at) => expect(tensor.data[at]).toBeCloseTo(value, 6));
  });
  it("makes zeros of a constant window", () => {
    expect([
      ...(windowTensor(window({ normalization: "zscore" }), new Float32Array(4).fill(7))
        .data as Float32Array),
    ]).toEqual([0, 0, 0, 0]);
  });
  it("takes the declared dims, a dynamic batch as 1", () => {
    expect(windowTensor(window({ channels: 2, length: 2, dims: [0, 2, 2] }), samples).dims).toEqual([
      1, 2, 2,
    ]);
  });
  it.each([
    ["too short", Float32Array.from([1])],
    ["NaN", Float32Array.from([1, Number.NaN, 2, 3])],
    ["infinite", Float32Array.from([1, Number.POSITIVE_INFINITY, 2, 3])],
  ])("refuses a window that is %s", (_, bad) => {
    expect(() => windowTensor(window(), bad)).toThrow(expect.objectContaining({ code: "window_invalid" }));
  });
});

describe("frames", () => {
  const refuse = async (): Promise<never> => {
    throw new Error("no decoder wanted");
  };
  const pixels = { kind: "pixels", data: new Uint8Array(45), width: 5, height: 3, channels: 3 } as const;

  it("of the right size take no decoder, and two at once do not share memory", async () => {
    const preparer = new FramePreparer({ inputs: [image()] }, refuse);
    const [a, b] = await Promise.all([preparer.prepare(pixels), preparer.prepare(pixels)]);
    expect(a.feeds["x"]!.data).not.toBe(b.feeds["x"]!.data);
    preparer.recycle(a);
    expect((await preparer.prepare(pixels)).feeds["x"]!.data).toBe(a.feeds["x"]!.data);
  });
  it.each([
    ["a window for an image", [image()], { kind: "window" as const, samples: new Float32Array(4) }],
    ["an image for a window", [window()], pixels],
    ["an image for two inputs", [image(), window()], pixels],
    ["tensors without an input", [window()], { kind: "tensors" as const, feeds: {} }],
    [
      "a tensor whose length contradicts its dims",
      [window()],
      {
        kind: "tensors" as const,
        feeds: { w: { type: "float32" as const, dims: [1, 4], data: new Float32Array(3) } },
      },
    ],
  ])("refuse %s", async (_, inputs, frame) => {
    await expect(new FramePreparer({ inputs }, refuse).prepare(frame)).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });
  it("of tensors fit any size of a dynamic batch and no other type or shape", async () => {
    const input = inputSchema.parse({ kind: "tensor", name: "t", elementType: "float32", dims: [0, 2] });
    const preparer = new FramePreparer({ inputs: [input] }, refuse);
    const feed = (dims: number[], data: Float32Array | Int32Array, type: "float32" | "int32" = "float32") =>
      preparer.prepare({ kind: "tensors", feeds: { t: { type, dims, data } } });
    await expect(feed([3, 2], new Float32Array(6))).resolves.toBeDefined();
    await expect(feed([3, 3], new Float32Array(9))).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(feed([2], new Float32Array(2))).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(feed([1, 2], new Int32Array(2), "int32")).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });
  it("of zeros exist for every input but text", () => {
    const tensorInput = (elementType: string) =>
      inputSchema.parse({ kind: "tensor", name: "t", elementType, dims: [0, 2] });
    expect(zeroFeeds([tensorInput("int64")])!["t"]).toEqual({
      type: "int64",
      dims: [1, 2],
      data: new BigInt64Array(2),
    });
    expect(zeroFeeds([tensorInput("string")])).toBeUndefined();
    expect(zeroFeeds([image()])!["x"]!.dims).toEqual([1, 3, 3, 5]);
  });
});
