import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Variant } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chooseVariant } from "../package/variant.js";
import { cpuFlagsOf, hostFacts } from "./facts.js";
import { checkGolden } from "./golden.js";
import { openModel, type LoadedModel } from "./model.js";
import { brightnessDraft, scratchFolder, writeBrightnessPackage } from "./small-packages.test.kit.js";
import { writePackage } from "./write-package.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
const open: LoadedModel[] = [];
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(async () => {
  for (const model of open.splice(0)) await model.release();
  await scratch.remove();
});

async function openBrightness(
  options: Parameters<typeof writeBrightnessPackage>[1] = {},
): Promise<LoadedModel> {
  const pkg = await writeBrightnessPackage(join(scratch.path, `p${open.length}`), options);
  const model = await openModel(pkg, { threadCount: 1 });
  open.push(model);
  return model;
}

const gray = (value: number) =>
  ({ kind: "pixels", data: new Uint8Array(16).fill(value), width: 4, height: 4, channels: 1 }) as const;

describe("predict", () => {
  it("gives class, confidence, signals, embedding and heads", async () => {
    const model = await openBrightness();
    const prediction = await model.predict(gray(255));
    // mean 1: logits -4 and 4.
    expect(prediction).toMatchObject({ class: 1, label: "light" });
    expect(prediction.confidence).toBeCloseTo(1 / (1 + Math.exp(-8)), 6);
    expect(Object.keys(prediction.signals)).toEqual(["margin", "entropy", "energy", "novelty", "brightness"]);
    expect(prediction.signals.energy).toBeCloseTo(-(4 + Math.log(1 + Math.exp(-8))), 5);
    expect(prediction.signals.novelty).toBeCloseTo(Math.SQRT2 / 0.5, 5);
    expect(prediction.signals.brightness).toBe(1);
    expect([...prediction.embedding!]).toEqual([1, expect.closeTo(0, 6)]);
    expect(prediction.heads.map((head) => head.kind)).toEqual(["classification", "embedding"]);
    expect(prediction.latencyMs).toBeGreaterThan(0);
    expect(prediction.boxes).toBeUndefined();
  });
  it("answers concurrent frames each with its own", async () => {
    const model = await openBrightness();
    const values = Array.from({ length: 24 }, (_, at) => at * 11);
    const predictions = await Promise.all(values.map((value) => model.predict(gray(value))));
    predictions.forEach((prediction, at) =>
      expect(prediction.signals.brightness).toBeCloseTo(values[at]! / 255, 6),
    );
    predictions.forEach((prediction, at) =>
      expect(prediction.label).toBe(values[at]! > 127.5 ? "light" : "dark"),
    );
  });
  it("goes on after a frame that was refused", async () => {
    const model = await openBrightness();
    await expect(model.predict({ kind: "encoded", bytes: new Uint8Array(9) })).rejects.toMatchObject({
      code: "image_type_refused",
    });
    expect((await model.predict(gray(0))).label).toBe("dark");
  });
});

describe("open", () => {
  const badOutput = brightnessDraft();
  const badInput = brightnessDraft();
  badOutput.draft.heads[1] = { name: "e", kind: "embedding", output: "features", length: 2 };
  badInput.draft.inputs[0] = { ...badInput.draft.inputs[0]!, name: "pixels" };
  it.each([
    ["a head without its output", badOutput, /no output "features", the graph has "logits", "embedding"/],
    ["an input that the graph lacks", badInput, /no input "pixels", the graph has "image"/],
  ])("refuses %s", async (_, { draft, files }, message) => {
    const pkg = await writePackage(join(scratch.path, "bad"), draft, files);
    await expect(openModel(pkg, { threadCount: 1 })).rejects.toThrow(message);
  });
  it("refuses a file that is no ONNX, before ONNX Runtime sees it", async () => {
    const { draft, files } = brightnessDraft();
    const garbage = { ...files, "model.onnx": new TextEncoder().encode("not a model") };
    const pkg = await writePackage(join(scratch.path, "bad"), draft, garbage);
    await expect(openModel(pkg, { threadCount: 1 })).rejects.toMatchObject({ code: "onnx_malformed" });
  });
  it("refuses an unknown variant, and a broken baseline", async () => {
    const pkg = await writeBrightnessPackage(join(scratch.path, "p"));
    await expect(openModel(pkg, { threadCount: 1, variant: "int4" })).rejects.toMatchObject({
      code: "not_found",
    });
    await writeFile(join(pkg.dir, "baseline.cbor"), "x");
    await expect(openModel(pkg, { threadCount: 1 })).rejects.toThrow();
  });
});

describe("golden cases", () => {
  it("pass within the tolerance and say the worst error", async () => {
    expect(await checkGolden(await openBrightness())).toMatchObject({
      cases: 1,
      worstAbsoluteError: expect.closeTo(0, 5),
    });
    const near = await checkGolden(await openBrightness({ goldenError: 5e-5 }));
    expect(near.worstAbsoluteError).toBeCloseTo(5e-5, 6);
  });
  it("fail with case, output, index and both values", async () => {
    await expect(checkGolden(await openBrightness({ goldenError: 0.5 }))).rejects.toMatchObject({
      code: "golden_case_failed",
      message: 'Check golden case "three-quarters": output "logits"[0] is -2, wanted -1.5 ± 0.0001',
    });
  });
  it("fail for another shape, and for NaN", async () => {
    const { draft, files } = brightnessDraft();
    const golden = draft.golden![0]!;
    const other = { ...golden, outputs: [{ ...golden.outputs[0]!, dims: [2, 1] }] };
    const shape = await writePackage(join(scratch.path, "shape"), { ...draft, golden: [other] }, files);
    open.push(await openModel(shape, { threadCount: 1 }));
    await expect(checkGolden(open[0]!)).rejects.toThrow(/is \[1, 2\], wanted \[2, 1\]/);
    const nan = {
      ...files,
      "golden/in.bin": new Uint8Array(Float32Array.from({ length: 16 }, () => Number.NaN).buffer),
    };
    open.push(await openModel(await writePackage(join(scratch.path, "nan"), draft, nan), { threadCount: 1 }));
    await expect(checkGolden(open[1]!)).rejects.toThrow(/is NaN, wanted -2/);
  });
});

describe("variant for a device", () => {
  const variant = (name: string, precision: Variant["precision"], more: Partial<Variant> = {}): Variant => ({
    name,
    precision,
    file: `${name}.onnx`,
    sha256: "0".repeat(64),
    bytes: 1,
    opset: 17,
    executionProviders: ["cpu"],
    cpuFlags: [],
    ...more,
  });
  const facts = (cpuFlags: string[], memoryBytes = 1e9) => ({
    cpuFlags,
    memoryBytes,
    executionProviders: ["cpu"],
  });
  const choose = (variants: Variant[], device: ReturnType<typeof facts>): string =>
    chooseVariant({ model: "m", version: 1, variants }, device).name;
  const both = [variant("fp32", "fp32"), variant("int8", "int8")];
  const vnni = variant("int8-u8s8", "int8", { cpuFlags: ["avx512_vnni", "avx_vnni"] });

  it.each([
    ["int8 on AVX512-VNNI", both, facts(["avx2", "avx512_vnni"]), "int8"],
    ["int8 on Arm with dot products", both, facts(["asimd", "asimddp"]), "int8"],
    ["fp32 on plain AVX2", both, facts(["avx2"]), "fp32"],
    ["int8 by any of the variant's own flags", [both[0]!, vnni], facts(["avx_vnni"]), "int8-u8s8"],
    ["fp32 where none of the variant's own flags is there", [both[0]!, vnni], facts(["asimddp"]), "fp32"],
    ["int8 where there is nothing else", [vnni], facts([]), "int8-u8s8"],
    ["fp32 before fp16", [variant("half", "fp16"), both[0]!], facts([]), "fp32"],
    [
      "what fits the memory",
      [both[0]!, variant("int8", "int8", { memoryBytesMax: 2e9 })],
      facts(["avx_vnni"]),
      "fp32",
    ],
  ])("is %s", (_, variants, device, expected) => {
    expect(choose(variants, device)).toBe(expected);
  });
  it("does not exist without its execution provider", () => {
    expect(() => choose([variant("gpu", "fp32", { executionProviders: ["cuda"] })], facts([]))).toThrow(
      expect.objectContaining({ code: "package_incompatible" }),
    );
  });
});

describe("facts of this host", () => {
  it("are complete", () => {
    const facts = hostFacts();
    expect(facts.executionProviders).toEqual(["cpu"]);
    expect(facts.runtimeVersion).toMatch(/^onnxruntime-node \d/);
    expect(facts.memoryBytes).toBeGreaterThan(1e8);
  });
  it("read the flags of x86 and of Arm, and no others", () => {
    expect(cpuFlagsOf("processor\t: 0\nflags\t\t: fpu sse4_2 avx2 avx512_vnni\n")).toEqual([
      "avx2",
      "avx512_vnni",
      "sse4_2",
    ]);
    expect(cpuFlagsOf("Features\t: fp asimd asimddp crc32\n")).toEqual(["asimd", "asimddp"]);
    expect(cpuFlagsOf("")).toEqual([]);
  });
});
