import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeDataFile } from "@fieldloop/protocol";
import { decodeBaseline } from "@fieldloop/runtime";
import { openModel, openPackage, ortNode } from "@fieldloop/runtime/node";
import { cameraConditions, createPartsScene } from "@fieldloop/runtime/simulate";
import { beforeAll, describe, expect, test } from "vitest";
import { packagePath } from "../index.js";
import { drawFrames, encodeJpeg, fromDataItems } from "./data.js";
import { accuracyOf, runParts } from "./evaluate.js";
import { measureRecovery } from "./recover.js";

/** Cameras that no recipe draws. */
const seed = 42_000;
const dir = packagePath("parts");
const read = (file: string): Promise<Uint8Array> => readFile(join(dir, file));
let variants: { name: string; bytes: Uint8Array }[];

beforeAll(async () => {
  variants = [
    { name: "fp32", bytes: await read("fp32.onnx") },
    { name: "int8-u8s8", bytes: await read("int8-u8s8.onnx") },
  ];
});

describe("parts", () => {
  test("is right on fresh cameras in normal light, and falls by 15 points or more in bad light", async () => {
    const draw = { seed, devices: 4, perDevice: 100, jpeg: "all" } as const;
    const normal = await drawFrames({ ...draw, condition: "normal" });
    const degraded = await drawFrames({ ...draw, condition: "degraded" });
    for (const { name, bytes } of variants) {
      const before = accuracyOf((await runParts(bytes, ortNode, normal)).logits, normal.labels).overall;
      const after = accuracyOf((await runParts(bytes, ortNode, degraded)).logits, degraded.labels).overall;
      console.log(`parts ${name}: normal ${before}, degraded ${after}`);
      expect(before).toBeGreaterThan(0.965);
      expect(after).toBeLessThan(before - 0.2);
      expect(after).toBeGreaterThan(0.45);
    }
  });

  test("predicts alike from pixels and from a JPEG, with its four signals", async () => {
    const model = await openModel(await openPackage(dir), { variant: "fp32", threadCount: 1 });
    try {
      const scene = createPartsScene({ seed });
      let agreed = 0;
      for (let index = 0; index < 50; index++) {
        const { pixels: data, width, height } = scene.next();
        const direct = await model.predict({ kind: "pixels", data, width, height, channels: 3 });
        const encoded = await model.predict({ kind: "encoded", bytes: await encodeJpeg(data) });
        if (direct.label === encoded.label) agreed++;
        expect(Object.keys(direct.signals)).toEqual(["margin", "entropy", "novelty", "brightness"]);
      }
      expect(agreed).toBeGreaterThanOrEqual(48);
    } finally {
      await model.release();
    }
  });

  test("recovers from bad light with 300 labels and replay", { timeout: 120_000 }, async () => {
    const { manifest } = await openPackage(dir);
    const [head] = manifest.heads;
    const found = await measureRecovery({
      model: variants[0].bytes,
      backend: ortNode,
      temperature: head.kind === "classification" ? head.temperature : 1,
      baseline: decodeBaseline(await read("baseline.cbor")),
      replay: await fromDataItems(decodeDataFile(await read("replay.bin"))),
      holdout: await fromDataItems(decodeDataFile(await read("holdout.bin"))),
      seed,
      condition: cameraConditions.degraded,
      framesPerCamera: 500,
      epochs: 15,
    });
    console.log(`parts recovery: ${JSON.stringify(found)}`);
    expect(found.degraded).toBeLessThan(found.normal - 0.15);
    expect(found.recovered).toBeGreaterThan(found.normal - 0.05);
    expect(found.oldAfter).toBeGreaterThan(found.oldBefore - 0.015);
    expect(found.precision.worth).toBeGreaterThan(0.65);
  });
});
