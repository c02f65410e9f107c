import { expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { refusalReasons, requireWorth, type VariantReport } from "./assess.js";
import { makeVariant, type MakeVariantOptions, type VariantSettings } from "./make.js";
import { convNet, feedsFor, outputsOf, relativeError } from "./networks.test.kit.js";
import { schemeSettings } from "./scheme.js";

const settings: VariantSettings = {
  method: "static",
  scheme: "u8s8",
  types: schemeSettings("u8s8", [["avx2", "avx512_vnni"]]),
  perChannel: true,
  calibrationMethod: { kind: "minmax" },
  blockSize: 32,
  symmetricBlocks: true,
  accuracyLevel: 4,
  keepFloat: [],
};

/** Closeness of the logits to the float model's on inputs made of `seed`; counts the models it judged. */
function closenessOn(float: Uint8Array, seed: number) {
  const held = feedsFor("image", [1, 3, 16, 16], 5, seed);
  const judged: Uint8Array[] = [];
  const evaluate = async (bytes: Uint8Array): Promise<number> => {
    judged.push(bytes);
    let worst = 0;
    for (const feeds of held) {
      const [reference, found] = [await outputsOf(float, feeds), await outputsOf(bytes, feeds)];
      worst = Math.max(worst, relativeError(reference["logits"]!, found["logits"]!));
    }
    return 1 - worst;
  };
  return { held, judged, evaluation: { metric: "closeness" as const, samples: held.length, evaluate } };
}

function optionsFor(float: Uint8Array): MakeVariantOptions {
  const { held, evaluation } = closenessOn(float, 70);
  return {
    backend: ortNode,
    fold: foldModel,
    calibration: feedsFor("image", [1, 3, 16, 16], 10, 3),
    examples: held,
    evaluation,
    bounds: { accuracyDropMax: 0.05, allowSlower: true },
    threadCount: 1,
    now: () => performance.now(),
    measureMs: 20,
  };
}

test("every method gives a variant with its measured report", async () => {
  const float = convNet(41, 16, [16, 32, 192]);
  const options = optionsFor(float);
  for (const method of ["static", "dynamic", "fp16", "fp16-storage", "int4"] as const) {
    const { bytes, report } = await makeVariant(float, { ...settings, method }, options);
    if (method !== "int4" && method !== "dynamic") expect(bytes.length).toBeLessThan(float.length * 0.7);
    expect(report).toMatchObject({ method, bytesBefore: float.length, bytesAfter: bytes.length });
    expect(report.nodesConverted).toBeGreaterThan(0);
    expect(report.nodesConverted).toBeLessThanOrEqual(report.nodesConvertible);
    expect(report.accuracy!.float).toBe(1);
    expect(report.accuracy!.variant).toBeGreaterThan(method === "int4" ? 0.7 : 0.95);
    expect(report.speed!.runs).toBeGreaterThanOrEqual(11);
    expect(report.outputs[0]!.cosine).toBeGreaterThan(0.97);
    expect(report.layers.length > 0).toBe(method === "static");
  }
});

test.each(["static", "dynamic", "fp16", "int4"] as const)(
  "%s refuses to leave a node in float that is not there",
  async (method) => {
    const float = convNet(41, 16, [16, 32, 192]);
    const options = { ...optionsFor(float), measureMs: 0 };
    await expect(
      makeVariant(float, { ...settings, method, keepFloat: ["Nothing_7"] }, options),
    ).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringMatching(/^Leave in float: no node or tensor "Nothing_7"; /) as string,
    });
  },
);

test("a search is part of making it, and only happens where the bound does not hold", async () => {
  const float = convNet(41);
  const judge = closenessOn(float, 70);
  const chooser = closenessOn(float, 71);
  const options = {
    ...optionsFor(float),
    evaluation: judge.evaluation,
    search: { evaluationsMax: 10, evaluation: chooser.evaluation },
  };
  const easy = await makeVariant(float, settings, options);
  expect(easy.report.search).toMatchObject({ found: true, keepFloat: [], evaluations: 1 });
  const accuracyDropMax = (1 - easy.report.search!.trail[0]!.accuracy) * 0.8;
  const strict = { ...options, bounds: { accuracyDropMax, allowSlower: true } };
  const { report } = await makeVariant(float, settings, strict);
  expect(report.search!.found).toBe(true);
  const tried = report.search!.trail.map(({ accuracy }) => accuracy);
  expect(Math.max(...tried)).toBeGreaterThanOrEqual(1 - accuracyDropMax);
  expect(report.search!.keepFloat.length).toBeGreaterThan(0);
  expect(report.search!.evaluations).toBeLessThanOrEqual(10);
  // The judge saw the float model and the chosen variant of both makings, nothing that a search tried.
  expect(judge.judged).toHaveLength(4);
  expect(chooser.judged).toHaveLength(easy.report.search!.evaluations + report.search!.evaluations + 2);
});

const report: VariantReport = {
  method: "static",
  settings: { scheme: "s8s8" },
  bytesBefore: 1000,
  bytesAfter: 300,
  nodesConvertible: 3,
  nodesConverted: 3,
  kernels: { integer: 1, float: 2, operators: {}, floatNodes: ["Conv_1 (FusedConv)", "Conv_2 (FusedConv)"] },
  layers: [{ node: "Conv_2", operator: "Conv", tensor: "c", cosine: 0.9, sqnrDb: 7.5 }],
  outputs: [{ name: "logits", cosine: 0.99, sqnrDb: 20 }],
  left: [],
  warnings: [],
  speed: { threads: 1, runs: 50, floatMs: 10, variantMs: 12.5 },
  accuracy: { metric: "accuracy", samples: 500, float: 0.95, variant: 0.92 },
};

test("what is slower or worse is refused, by how much, with what did not fuse and what to try", () => {
  const refused = () => requireWorth(report, { accuracyDropMax: 0.01, allowSlower: false });
  expect(refused).toThrow(
    /falls by 3\.00 points \(95\.00 to 92\.00 % on 500 inputs\), at most 1\.00 allowed/,
  );
  expect(refused).toThrow(/1\.25 times as long as float here \(12\.50 against 10\.00 ms on 1 thread\)/);
  expect(refused).toThrow(/2 products stay float: Conv_1 \(FusedConv\), Conv_2/);
  expect(refused).toThrow(/worst layer "Conv_2" \(Conv\) at 7\.5 dB.*--search/);
  const slower = { ...report, accuracy: { ...report.accuracy!, variant: 0.95 } };
  expect(() => requireWorth(slower, { accuracyDropMax: 0.01, allowSlower: false })).toThrow(
    /--scheme u8s8 on a CPU, --allow-slower/,
  );
});

test("each bound can be widened, and a result that is not finite is refused in any case", () => {
  expect(refusalReasons(report, { accuracyDropMax: 0.03, allowSlower: true })).toEqual([]);
  const even = { ...report, speed: { ...report.speed!, variantMs: 10.1 } };
  expect(refusalReasons(even, { accuracyDropMax: 0.05, allowSlower: false })).toEqual([]);
  const broken = { ...report, outputs: [{ name: "logits", cosine: Number.NaN, sqnrDb: Number.NaN }] };
  expect(refusalReasons(broken, { accuracyDropMax: 1, allowSlower: true })).toEqual([
    'output "logits" is not finite',
  ]);
  const lost = { ...report, accuracy: { ...report.accuracy!, variant: Number.NaN } };
  expect(refusalReasons(lost, { accuracyDropMax: 1, allowSlower: true })).toHaveLength(1);
});
