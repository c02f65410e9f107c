import { inputSchema, type ImageInput, type WindowInput } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import type { ElementType, TensorInfo } from "../backend.js";
import { PixelPacker } from "../input/pixels.js";
import { windowTensor } from "../input/window.js";
import type { ModelSignature, PresetOptions } from "./preset.js";
import { applyPreset } from "./presets.js";

const tensor = (type: ElementType, dims: number[]): TensorInfo => ({ name: "x", type, dims });
const of = (input: TensorInfo, output: number[] = [1, 3]): ModelSignature => ({
  inputs: [input],
  outputs: [{ name: "y", type: "float32", dims: output }],
});

function windowOf(dims: number[], options: PresetOptions): WindowInput {
  const { inputs } = applyPreset("classifier-logits", of(tensor("float32", dims)), {
    sampleRateHz: 50,
    ...options,
  });
  return inputSchema.parse(inputs[0]) as WindowInput;
}

function imageOf(signature: ModelSignature, preset: string, options: PresetOptions = {}): ImageInput {
  return inputSchema.parse(applyPreset(preset, signature, options).inputs[0]) as ImageInput;
}

/** What the model gets for each pixel value, of one channel. */
function codes(input: ImageInput): number[] {
  const one = new PixelPacker({ ...input, width: 256, height: 1 });
  const into = one.allocate();
  one.pack(
    Uint8Array.from({ length: 768 }, (_, at) => Math.floor(at / 3)),
    3,
    into,
  );
  return Array.from({ length: 256 }, (_, value) => Number(into.data[value * 3]));
}

describe("a window of several channels", () => {
  // Two samples of three channels, as a source gives them.
  const samples = Float32Array.from([11, 21, 31, 12, 22, 32]);
  it("is laid out as the tensor's shape says, by the number of channels", () => {
    expect([...(windowTensor(windowOf([1, 3, 2], { channels: 3 }), samples).data as Float32Array)]).toEqual([
      11, 12, 21, 22, 31, 32,
    ]);
    expect([...(windowTensor(windowOf([1, 2, 3], { channels: 3 }), samples).data as Float32Array)]).toEqual([
      ...samples,
    ]);
    expect(windowOf([1, 3, 2], { channels: 3 })).toMatchObject({ length: 2, layout: "channel-time" });
    expect(windowOf([1, 3, 1, 2], { channels: 3 }).layout).toBe("channel-time");
    expect(windowOf([1, 6], { channels: 3 })).toMatchObject({ length: 2, dims: [1, 6] });
  });
  it("is refused where the shape leaves open which axis is time", () => {
    expect(() => windowOf([1, 3, 128], {})).toThrow(/which axis is time\? .*--channels 3 or 128/);
    expect(() => windowOf([1, 4, 4], { channels: 4 })).toThrow(/--window-layout/);
    expect(() => windowOf([1, 3, 128], { channels: 6 })).toThrow(/no axis has 6 channels/);
    expect(windowOf([1, 4, 4], { channels: 4, windowLayout: "channel-time" }).layout).toBe("channel-time");
    expect(windowOf([1, 3, 128], { channels: 1 })).toMatchObject({ length: 384, channels: 1 });
  });
  it("is normalized channel by channel, and what is declared is applied", () => {
    const input = windowOf([1, 3, 2], { channels: 3, mean: [11, 21, 31], std: [1, 2, 4] });
    expect(input.normalization).toBe("fixed");
    expect([...(windowTensor(input, samples).data as Float32Array)]).toEqual([0, 1, 0, 0.5, 0, 0.25]);
    const shared = windowOf([1, 3, 2], { channels: 3, mean: [1], std: [1, 2, 4] });
    expect([...(windowTensor(shared, samples).data as Float32Array)]).toEqual([10, 11, 10, 10.5, 7.5, 7.75]);
    expect(() => windowTensor(windowOf([1, 3, 2], { channels: 3, mean: [1, 2] }), samples)).toThrow(
      /2 values of mean, wanted 1 or 3/,
    );
  });
});

describe("an image of integers", () => {
  const pixels = Array.from({ length: 256 }, (_, value) => value);
  it.each(["uint8", "int32"] as const)("of %s is the pixels, whatever a preset does to floats", (type) => {
    expect(codes(imageOf(of(tensor(type, [1, 8, 8, 3])), "classifier-logits"))).toEqual(pixels);
    expect(codes(imageOf(of(tensor(type, [1, 8, 8, 3]), [1, 17, 3]), "keypoints"))).toEqual(pixels);
  });
  it("passes the scale that the graph tells", () => {
    const quantized = (scale: number, zeroPoint: number, type: ElementType): ModelSignature => ({
      ...of(tensor(type, [1, 8, 8, 3])),
      quantization: { x: { scale, zeroPoint } },
    });
    const signed = pixels.map((value) => value - 128);
    expect(codes(imageOf(quantized(1 / 255, -128, "int8"), "classifier-logits"))).toEqual(signed);
    // (v − 127.5) / 127.5 over a scale of 1 / 127.5: every value lies half way, and goes to the even one.
    const centred = { range: "byte", mean: [127.5], std: [127.5] } as const;
    expect(codes(imageOf(quantized(1 / 127.5, 0, "int8"), "classifier-logits", centred)).slice(0, 3)).toEqual(
      [-128, -126, -126],
    );
    expect(codes(imageOf(quantized(1 / 255, 0, "uint8"), "classifier-logits"))).toEqual(pixels);
  });
  it("keeps apart what integers stand for on the way in and out", () => {
    const picture = of(tensor("uint8", [1, 3, 8, 8]), [1, 3, 8, 8]);
    const { inputs, heads } = applyPreset(
      "image-to-image",
      { ...picture, quantization: { x: { scale: 1 / 255, zeroPoint: 0 } } },
      { range: "unit" },
    );
    expect(codes(inputSchema.parse({ ...inputs[0], layout: "nhwc" }) as ImageInput)).toEqual(pixels);
    expect(heads[0]).toMatchObject({ kind: "image", range: "unit" });
    expect(heads[0]).not.toHaveProperty("std");
  });
});
