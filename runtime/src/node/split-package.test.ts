import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor, int64Tensor } from "../onnx/tensor.js";
import { tensorToBytes } from "../package/tensor-bytes.js";
import { buildPipeline } from "./build-pipeline.js";
import { checkGolden } from "./golden.js";
import { openModel } from "./model.js";
import type { ModelPackage } from "./package.js";
import {
  COUNT_STATE,
  countingModel,
  draftOf,
  imageInput,
  labelHead,
  variantOf,
  windowInput,
  type HeadDraft,
} from "./pipeline-packages.test.kit.js";
import { scratchFolder, writeBrightnessPackage } from "./small-packages.test.kit.js";
import { splitPackage } from "./split-package.js";
import { writePackage } from "./write-package.js";

const CREATED = new Date("2026-11-20T00:00:00Z");

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(() => scratch.remove());

const SHADES: HeadDraft = { ...labelHead("shade", ["dark", "light"]), name: "Shade of it" };
const SIDES: HeadDraft = { ...labelHead("side", ["left", "right"]), name: "side" };

/** Means of the left and the right half of a 2×2 image as `halves`, and two heads on them; the second variant has another name inside. */
async function twoHeads(heads: HeadDraft[] = [SHADES, SIDES]): Promise<ModelPackage> {
  const model = (halves: string): Uint8Array => {
    const graph = new GraphBuilder();
    const image = graph.input("image", "float32", [1, 1, 2, 2]);
    const [pooled] = graph.node("AveragePool", [image], { kernel_shape: { ints: [2, 1] } });
    graph.node("Flatten", [pooled!], { axis: { i: 1 } }, [halves]);
    const shade = graph.initializer(float32Tensor("shade.weight", [2, 2], [-1, -1, 1, 1]));
    const side = graph.initializer(float32Tensor("side.weight", [2, 2], [4, 0, 0, 4]));
    graph.node("Gemm", [halves, shade], { transB: { i: 1 } }, ["shade"]);
    graph.node("Gemm", [halves, side], { transB: { i: 1 } }, ["side"]);
    graph.output("shade", "float32", [1, 2]);
    graph.output("side", "float32", [1, 2]);
    return encodeModel(graph.build({ opset: 17 }));
  };
  const floats = (values: readonly number[]): Uint8Array =>
    tensorToBytes({ type: "float32", dims: [values.length], data: Float32Array.from(values) });
  const tensor = (name: string, file: string, dims: number[]) => ({
    name,
    file,
    elementType: "float32" as const,
    dims,
  });
  return writePackage(
    join(scratch.path, "whole"),
    draftOf({
      model: "halves",
      version: 4,
      inputs: [imageInput(2)],
      heads,
      signals: ["margin"],
      variants: [variantOf("a.onnx"), { ...variantOf("b.onnx"), name: "other" }],
      golden: [
        {
          name: "right",
          inputs: [tensor("image", "in.bin", [1, 1, 2, 2])],
          outputs: [tensor("shade", "shade.bin", [1, 2]), tensor("side", "side.bin", [1, 2])],
          tolerance: { fp32: { absolute: 1e-5, relative: 0 } },
        },
      ],
    }),
    {
      "a.onnx": model("halves"),
      "b.onnx": model("renamed"),
      "in.bin": floats([0, 1, 0, 0.5]),
      "shade.bin": floats([-0.75, 0.75]),
      "side.bin": floats([0, 3]),
    },
  );
}

describe("a package that is split", () => {
  it("becomes a backbone and a head each, with golden cases, that build the same model again", async () => {
    const dir = join(scratch.path, "parts");
    const split = await splitPackage(dir, await twoHeads(), { created: CREATED, at: ["halves"] });
    expect([...split.parts.keys()]).toEqual(["root", "shade-of-it", "side"]);
    expect(split.variantsLeftOut).toMatchObject([{ variant: "other" }]);
    expect(split.spec).toMatchObject({ model: "halves", version: 5, root: "backbone" });
    const backbone = split.parts.get("root")!.manifest;
    expect(backbone).toMatchObject({ model: "halves-backbone", heads: [], inputs: [{ kind: "image" }] });
    const side = split.parts.get("side")!.manifest;
    expect(side).toMatchObject({
      heads: [{ name: "side" }],
      inputs: [{ kind: "tensor", name: "halves", dims: [1, 2] }],
      task: "classification",
      lineage: { base: { model: "halves", version: 4 } },
    });
    const built = await buildPipeline(join(scratch.path, "built"), split.spec, split.parts, {
      created: CREATED,
    });
    const model = await openModel(built, { threadCount: 1 });
    try {
      expect(await checkGolden(model)).toMatchObject({ cases: 3 });
      const data = Uint8Array.of(0, 255, 0, 255);
      const prediction = await model.predict({ kind: "pixels", data, width: 2, height: 2, channels: 1 });
      expect(prediction).toMatchObject({ label: "light" });
      expect(prediction.nodes![1]!.heads[0]).toMatchObject({ name: "side", label: "right" });
    } finally {
      await model.release();
    }
  });
  it("is cut before the last weighted layer where nothing else is said", async () => {
    const whole = await writeBrightnessPackage(join(scratch.path, "plain"));
    const split = await splitPackage(join(scratch.path, "parts"), whole, { created: CREATED });
    const heads = [...split.parts].map(([name, { manifest }]) => [
      name,
      manifest.heads.map((one) => one.name),
    ]);
    expect(heads).toEqual([
      ["root", []],
      ["class", ["class"]],
      ["embedding", ["embedding"]],
    ]);
    const built = await buildPipeline(join(scratch.path, "built"), split.spec, split.parts, {
      created: CREATED,
    });
    const apart = await openModel(built, { threadCount: 1 });
    const together = await openModel(whole, { threadCount: 1 });
    try {
      const data = new Uint8Array(16).fill(99);
      const image = { kind: "pixels", data, width: 4, height: 4, channels: 1 } as const;
      const { signals, embedding } = await apart.predict(image);
      const expected = await together.predict(image);
      expect(signals).toEqual(expected.signals);
      expect(embedding).toEqual(expected.embedding);
    } finally {
      await apart.release();
      await together.release();
    }
  });
  it("is cut where all passes, and by the sizes that a run shows where the file states no rank", async () => {
    // The last weighted layer reads `near`, which is not all that the output needs; what Squeeze makes of a computed shape has no stated rank.
    const graph = new GraphBuilder();
    const image = graph.input("image", "float32", [1, 1, 2, 2]);
    const size = graph.initializer(int64Tensor("size", [3], [2, 1, 2]));
    const once = graph.initializer(int64Tensor("once", [1], [0]));
    const [kept] = graph.node("NonZero", [image]);
    const [none] = graph.node("ReduceMax", [kept!], { keepdims: { i: 0 } });
    const [zeros] = graph.node("Mul", [none!, once]);
    const [shape] = graph.node("Add", [size, zeros!]);
    const [open] = graph.node("Reshape", [image, shape!]);
    graph.node("Squeeze", [open!], {}, ["flat"]);
    const first = graph.initializer(float32Tensor("first", [2, 2], [1, 0, 1, 0]));
    const second = graph.initializer(float32Tensor("second", [2, 2], [1, 0, 0, 1]));
    graph.node("MatMul", ["flat", first], {}, ["wide"]);
    graph.node("Sigmoid", ["wide"], {}, ["near"]);
    graph.node("MatMul", ["near", second], {}, ["product"]);
    graph.node("Add", ["product", "wide"], {}, ["both"]);
    graph.node("ReduceSum", ["both", once], {}, ["side"]);
    graph.output("side", "float32", [1, 2]);
    const draft = draftOf({
      ...{ inputs: [imageInput(2)], heads: [SIDES] },
      variants: [variantOf("m.onnx")],
    });
    const whole = await writePackage(join(scratch.path, "whole"), draft, {
      "m.onnx": encodeModel(graph.build({ opset: 13 })),
    });
    const dir = join(scratch.path, "parts");
    await expect(splitPackage(dir, whole, { created: CREATED, at: ["near"] })).rejects.toThrow(
      /behind "near" needs "image" as well, so it would hold the backbone again/,
    );
    expect(existsSync(dir)).toBe(false);
    const split = await splitPackage(dir, whole, { created: CREATED });
    const head = split.parts.get("side")!.manifest;
    expect(head.inputs).toMatchObject([{ kind: "tensor", name: "wide", dims: [2, 2] }]);
    await buildPipeline(join(scratch.path, "built"), split.spec, split.parts, { created: CREATED });
  });
  it("leaves out outputs that no head reads", async () => {
    const split = await splitPackage(join(scratch.path, "parts"), await twoHeads([SIDES]), {
      created: CREATED,
      at: ["halves"],
    });
    expect([...split.parts.keys()]).toEqual(["root", "side"]);
  });
  it("is refused where it cannot be cut, and leaves nothing behind", async () => {
    const dir = join(scratch.path, "parts");
    const whole = await twoHeads();
    const cut = (pkg: ModelPackage, at: string[]) => splitPackage(dir, pkg, { created: CREATED, at });
    await expect(cut(whole, ["nothing"])).rejects.toMatchObject({ code: "not_found" });
    await expect(cut(whole, ["shade", "side"])).rejects.toMatchObject({ code: "invalid_argument" });
    const sound = await writePackage(
      join(scratch.path, "sound"),
      draftOf({
        inputs: [windowInput(4), COUNT_STATE],
        heads: [{ name: "count", kind: "regression", output: "count", targets: [{ name: "count" }] }],
        variants: [variantOf("m.onnx")],
      }),
      { "m.onnx": countingModel(4) },
    );
    await expect(cut(sound, ["level"])).rejects.toMatchObject({ code: "invalid_argument" });
    expect(existsSync(dir)).toBe(false);
    await cut(whole, ["halves"]);
    await expect(cut(whole, ["halves"])).rejects.toMatchObject({ code: "already_exists" });
  });
});
