import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { describeFile } from "./complete-shapes.js";
import { checkGolden } from "./golden.js";
import { importModel, type ImportOptions } from "./import.js";
import { openModel } from "./model.js";
import { openPackage } from "./package.js";
import { scratchFolder } from "./small-packages.test.kit.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(() => scratch.remove());

const options = (preset: string, more: Partial<ImportOptions> = {}): ImportOptions => ({
  preset,
  model: "imported",
  licence: "MIT",
  created: new Date("2026-11-20T00:00:00Z"),
  ...more,
});

/** A doubler of three numbers, with its weight listed as an input as old exporters did. */
function doubler(): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input("x", "float32", ["n", 3]);
  const two = graph.initializer(float32Tensor("two", [1], [2]));
  graph.node("Mul", [x, two], {}, ["y"]);
  graph.output("y", "float32", ["n", 3]);
  return encodeModel(graph.build({ opset: 17 }));
}

describe("import", () => {
  it("makes a package that opens, predicts and holds its golden case", async () => {
    await writeFile(join(scratch.path, "m.onnx"), doubler());
    const dir = join(scratch.path, "package");
    const pkg = await importModel(join(scratch.path, "m.onnx"), dir, options("classifier-logits"));
    expect(pkg.manifest).toMatchObject({ model: "imported", version: 1, lineage: { trainer: "import" } });
    const model = await openModel(await openPackage(dir), { threadCount: 1 });
    try {
      expect(await checkGolden(model)).toMatchObject({ cases: 1, worstAbsoluteError: 0 });
      const feeds = { x: { type: "float32", dims: [1, 3], data: Float32Array.of(0, 3, 1) } } as const;
      expect(await model.predict({ kind: "tensors", feeds })).toMatchObject({ class: 1, label: "1" });
    } finally {
      await model.release();
    }
  });
  it("fills in the shape of an output that its exporter left out", async () => {
    const graph = new GraphBuilder();
    const weight = graph.initializer(float32Tensor("w", [2, 3], [1, 0, 0, 0, 1, 0]));
    graph.node("MatMul", [graph.input("x", "float32", ["n", 2]), weight], {}, ["y"]);
    graph.output("y", "float32");
    const file = join(scratch.path, "m.onnx");
    await writeFile(file, encodeModel(graph.build({ opset: 17 })));
    expect((await describeFile(file)).signature.outputs).toEqual([
      { name: "y", type: "float32", dims: ["n", 3] },
    ]);
    const pkg = await importModel(file, join(scratch.path, "p"), options("tensor"));
    expect(pkg.manifest.heads).toMatchObject([{ kind: "embedding", length: 3 }]);
  });
  it("refuses a preset whose heads cannot read what the model gives", async () => {
    const graph = new GraphBuilder();
    const x = graph.input("x", "float32", ["n", 2]);
    const weight = graph.initializer(float32Tensor("w", [2, 3], [40, 0, 0, 0, 40, 0]));
    const bias = graph.initializer(float32Tensor("b", [3], [8, 0, -8]));
    graph.node("Gemm", [x, weight, bias], {}, ["y"]);
    graph.output("y", "float32", ["n", 3]);
    const file = join(scratch.path, "m.onnx");
    await writeFile(file, encodeModel(graph.build({ opset: 17 })));
    await expect(
      importModel(file, join(scratch.path, "p"), options("classifier-softmax")),
    ).rejects.toMatchObject({
      code: "package_incompatible",
      message: expect.stringMatching(
        /Read head "class": output "y" holds .*wanted probabilities; logits/,
      ) as string,
    });
    expect(readdirSync(scratch.path)).toEqual(["m.onnx"]);
    await importModel(file, join(scratch.path, "p"), options("classifier-logits"));
  });
  it.each<[string, ImportOptions["presetOptions"], RegExp]>([
    ["classifier-logits", { temperature: 0 }, /^Describe model: head "class", temperature: Too small/],
    ["classifier-logits", { sampleRateHz: 5, std: [0] }, /^Describe model: input "x", std: /],
    ["multilabel", { threshold: 2 }, /^Describe model: head "labels", threshold: Too big/],
  ])("refuses options of %s that no manifest may hold: %j", async (preset, presetOptions, message) => {
    const file = join(scratch.path, "m.onnx");
    await writeFile(file, doubler());
    await expect(
      importModel(file, join(scratch.path, "p"), options(preset, { presetOptions: presetOptions! })),
    ).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(message) as string,
    });
  });
  it("warns of a label that two classes have", async () => {
    const file = join(scratch.path, "m.onnx");
    await writeFile(file, doubler());
    const presetOptions = { labels: ["crane", "cardigan", "crane"] };
    const pkg = await importModel(
      file,
      join(scratch.path, "p"),
      options("classifier-logits", { presetOptions }),
    );
    expect(pkg.warnings).toEqual([
      'head "class" has the label "crane" twice: feedback and training rows cannot tell the two apart',
    ]);
  });
  it("leaves no folder behind where the file is refused", async () => {
    const file = join(scratch.path, "m.onnx");
    const dir = join(scratch.path, "package");
    await writeFile(file, doubler().subarray(0, 40));
    await expect(importModel(file, dir, options("tensor"))).rejects.toMatchObject({ code: /^onnx_/ });
    await expect(importModel(`${file}.missing`, dir, options("tensor"))).rejects.toMatchObject({
      code: "not_found",
    });
    await writeFile(file, doubler());
    await expect(importModel(file, dir, options("mnist"))).rejects.toMatchObject({
      code: "package_incompatible",
    });
    expect(readdirSync(scratch.path)).toEqual(["m.onnx"]);
  });
});

/** Folder with public models and data sets; it is not part of the project. */
const dataFolder = process.env.FIELDLOOP_TEST_DATA ?? "";
const hasData =
  dataFolder !== "" && existsSync(join(dataFolder, "models")) && existsSync(join(dataFolder, "sets"));
const ffmpeg = "/usr/bin/ffmpeg";
const reason = hasData
  ? existsSync(ffmpeg)
    ? ""
    : ` (faces skipped: no ${ffmpeg})`
  : " (skipped: FIELDLOOP_TEST_DATA names no folder with models and sets)";

describe.skipIf(!hasData)(`public models through the agent's own API${reason}`, () => {
  it("mnist-8 reaches 98.3 ± 0.1 % on 5,000 digits", { timeout: 60_000 }, async () => {
    const pkg = await importModel(
      join(dataFolder, "models/mnist-8/mnist.onnx"),
      join(scratch.path, "p"),
      options("mnist"),
    );
    const images = gunzipSync(readFileSync(join(dataFolder, "sets/mnist5k/images-idx3-ubyte.gz"))).subarray(
      16,
    );
    const labels = gunzipSync(readFileSync(join(dataFolder, "sets/mnist5k/labels-idx1-ubyte.gz"))).subarray(
      8,
    );
    const model = await openModel(pkg, { threadCount: 1 });
    let right = 0;
    for (let at = 0; at < labels.length; at++) {
      const data = images.subarray(at * 784, (at + 1) * 784);
      const prediction = await model.predict({ kind: "pixels", data, width: 28, height: 28, channels: 1 });
      if (prediction.class === labels[at]) right++;
    }
    await model.release();
    const percent = (right / labels.length) * 100;
    console.log(`mnist-8: ${percent.toFixed(2)} % of ${labels.length}`);
    expect(Math.abs(percent - 98.3)).toBeLessThanOrEqual(0.1);
  });

  it.skipIf(!existsSync(ffmpeg))(
    "UltraFace RFB-320 finds the signer's face in every frame at 2 a second",
    { timeout: 60_000 },
    async () => {
      const video = join(dataFolder, "sets/videos/book.mkv");
      const out = spawnSync(ffmpeg, [
        "-loglevel",
        "error",
        "-i",
        video,
        "-vf",
        "fps=2",
        "-q:v",
        "2",
        join(scratch.path, "%03d.jpg"),
      ]);
      expect(out.status).toBe(0);
      const frames = readdirSync(scratch.path).filter((name) => name.endsWith(".jpg"));
      expect(frames.length).toBeGreaterThan(3);
      const source = join(dataFolder, "models/ultraface/version-RFB-320.onnx");
      const model = await openModel(
        await importModel(source, join(scratch.path, "p"), options("ultraface")),
        { threadCount: 1 },
      );
      const scores: number[] = [];
      for (const name of frames) {
        const { label, confidence, boxes } = await model.predict({
          kind: "encoded",
          bytes: readFileSync(join(scratch.path, name)),
        });
        expect(label).toBe("face");
        scores.push(confidence);
        expect(boxes!.length).toBe(1);
        const { x0, y0, x1, y1 } = boxes![0]!;
        // The signer's head is in the upper middle of the picture and keeps its size.
        expect((x0 + x1) / 2).toBeGreaterThan(0.4);
        expect((x0 + x1) / 2).toBeLessThan(0.55);
        expect((y0 + y1) / 2).toBeLessThan(0.4);
        expect(x1 - x0).toBeGreaterThan(0.05);
        expect(x1 - x0).toBeLessThan(0.2);
      }
      await model.release();
      console.log(
        `UltraFace RFB-320: a face in ${frames.length} of ${frames.length} frames, lowest score ${Math.min(...scores).toFixed(3)}`,
      );
      expect(Math.min(...scores)).toBeGreaterThan(0.95);
    },
  );
});
