import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import type { PipelineSpec } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GraphBuilder } from "../onnx/builder.js";
import { splitModel } from "../onnx/extract.js";
import type { ModelProto } from "../onnx/generated/onnx_pb.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { Random } from "../simulate/random.js";
import { buildPipeline } from "./build-pipeline.js";
import { checkGolden } from "./golden.js";
import { importModel } from "./import.js";
import { openModel, type LoadedModel } from "./model.js";
import type { ModelPackage } from "./package.js";
import { draftOf, imageInput, labelHead, variantOf } from "./pipeline-packages.test.kit.js";
import { scratchFolder } from "./small-packages.test.kit.js";
import { writePackage } from "./write-package.js";

const CREATED = new Date("2026-11-20T00:00:00Z");

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
const open: LoadedModel[] = [];
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(async () => {
  for (const model of open.splice(0)) await model.release();
  await scratch.remove();
});

async function opened(pkg: ModelPackage): Promise<LoadedModel> {
  const model = await openModel(pkg, { threadCount: 1 });
  open.push(model);
  return model;
}

const SIZE = 16;
const CHANNELS = 8;
const HEADS = { first: 3, second: 2, third: 5 } as const;

/** A convolution network of one backbone and three dense heads, with seeded weights. */
function wholeNet(): ModelProto {
  const random = new Random(3);
  const graph = new GraphBuilder();
  const weights = (dims: readonly number[]): string => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    const values = Float32Array.from({ length: count }, () => random.normal());
    return graph.initializer(float32Tensor("", dims, values));
  };
  const image = graph.input("image", "float32", [1, 1, SIZE, SIZE]);
  const kernel = { kernel_shape: { ints: [3, 3] }, strides: { ints: [2, 2] } };
  const [convolved] = graph.node("Conv", [image, weights([CHANNELS, 1, 3, 3])], kernel);
  const [lit] = graph.node("Relu", [convolved!]);
  const [pooled] = graph.node("GlobalAveragePool", [lit!]);
  graph.node("Flatten", [pooled!], { axis: { i: 1 } }, ["features"]);
  for (const [name, classes] of Object.entries(HEADS)) {
    graph.node("Gemm", ["features", weights([classes, CHANNELS])], { transB: { i: 1 } }, [name]);
    graph.output(name, "float32", [1, classes]);
  }
  return graph.build({ opset: 17 });
}

const headOf = (name: keyof typeof HEADS) => ({
  ...labelHead(
    name,
    Array.from({ length: HEADS[name] }, (_, at) => `${name}-${at}`),
  ),
  name,
});

describe("a model that was split", () => {
  it("gives as a pipeline, bit for bit, what the whole gives, with one run of the backbone", async () => {
    const names = Object.keys(HEADS) as (keyof typeof HEADS)[];
    const whole = await writePackage(
      join(scratch.path, "whole"),
      draftOf({ inputs: [imageInput(SIZE)], heads: names.map(headOf), variants: [variantOf("m.onnx")] }),
      { "m.onnx": encodeModel(wholeNet()) },
    );
    const features = { name: "features", type: "float32", dims: [1, CHANNELS] } as const;
    const { backbone, heads } = splitModel(wholeNet(), ["features"], new Map([["features", features]]));
    const parts = new Map([
      [
        "root",
        await writePackage(
          join(scratch.path, "backbone"),
          draftOf({ inputs: [imageInput(SIZE)], heads: [], variants: [variantOf("m.onnx")] }),
          { "m.onnx": encodeModel(backbone.model) },
        ),
      ],
    ]);
    const nodes: PipelineSpec["nodes"] = [];
    for (const [at, name] of names.entries()) {
      const input = { kind: "tensor" as const, name: "features", elementType: "float32" as const };
      const draft = draftOf({
        model: name,
        inputs: [{ ...input, dims: [1, CHANNELS] }],
        heads: [headOf(name)],
        variants: [variantOf("m.onnx")],
      });
      const files = { "m.onnx": encodeModel(heads[at]!.model) };
      parts.set(name, await writePackage(join(scratch.path, name), draft, files));
      const from = { kind: "tensors", node: "root", tensors: { features: "features" } } as const;
      nodes.push({ name, package: name, from });
    }
    const spec: PipelineSpec = { model: "split", version: 1, description: "", root: "backbone", nodes };
    const pipeline = await opened(
      await buildPipeline(join(scratch.path, "split"), spec, parts, { created: CREATED }),
    );
    const plain = await opened(whole);
    const backboneRuns = vi.spyOn(pipeline.session, "run");
    const random = new Random(9);
    for (let frame = 0; frame < 5; frame++) {
      const data = Uint8Array.from({ length: SIZE * SIZE }, () => Math.floor(random.uniform() * 256));
      const image = { kind: "pixels", data, width: SIZE, height: SIZE, channels: 1 } as const;
      const apart = await pipeline.predict(image);
      const together = await plain.predict(image);
      expect(apart.nodes!.flatMap((node) => node.heads)).toEqual(together.heads);
      expect(apart).toMatchObject({ label: together.label, confidence: together.confidence });
    }
    expect(backboneRuns).toHaveBeenCalledTimes(5);
  });
});

function imported(file: string, preset: string, model: string): Promise<ModelPackage> {
  return importModel(join(dataFolder, "models", file), join(scratch.path, model), {
    preset,
    model,
    licence: "MIT",
    created: CREATED,
  });
}

/** Samples −1..1 of a 16-bit PCM file of one channel (RIFF WAVE). */
function readWave(path: string): Float32Array {
  const bytes = readFileSync(path);
  let at = 12;
  while (bytes.toString("latin1", at, at + 4) !== "data") at += 8 + bytes.readUInt32LE(at + 4);
  const count = bytes.readUInt32LE(at + 4) / 2;
  return Float32Array.from({ length: count }, (_, index) => bytes.readInt16LE(at + 8 + 2 * index) / 32_768);
}

/** Folder with public models and data sets; it is not part of the project. */
const dataFolder = process.env.FIELDLOOP_TEST_DATA ?? "";
const ffmpeg = "/usr/bin/ffmpeg";
const missing = [join(dataFolder, "models"), join(dataFolder, "sets"), ffmpeg].filter(
  (path) => dataFolder === "" || !existsSync(path),
);
const reason = missing.length === 0 ? "" : ` (skipped: no ${missing.join(", ")}; FIELDLOOP_TEST_DATA)`;

describe.skipIf(missing.length > 0)(`public models${reason}`, () => {
  it("find the face in each frame, and look at it again with two classifiers", {
    timeout: 60_000,
  }, async () => {
    const images = join(scratch.path, "images");
    await mkdir(images);
    const video = join(dataFolder, "sets/videos/book.mkv");
    const cut = ["-loglevel", "error", "-i", video, "-vf", "fps=2", "-q:v", "2", join(images, "%03d.jpg")];
    expect(spawnSync(ffmpeg, cut).status).toBe(0);
    const parts = new Map([
      ["root", await imported("ultraface/version-RFB-320.onnx", "ultraface", "faces")],
      ["thing", await imported("cifar10-cnn/ImageClassifier.onnx", "classifier-logits", "things")],
      ["digit", await imported("mnist-8/mnist.onnx", "mnist", "digits")],
    ]);
    const crop = { kind: "crop", node: "root", head: "faces", scoreThreshold: 0.9, cropsMax: 4 } as const;
    const head = parts.get("root")!.manifest.heads[0]!.name;
    const spec: PipelineSpec = {
      model: "faces-again",
      version: 1,
      description: "",
      root: "faces",
      nodes: [
        { name: "thing", package: "things", from: { ...crop, head, margin: 0.2 } },
        { name: "digit", package: "digits", from: { ...crop, head, margin: 0 } },
      ],
    };
    const model = await opened(
      await buildPipeline(join(scratch.path, "again"), spec, parts, { created: CREATED }),
    );
    expect((await checkGolden(model)).cases).toBe(3);
    const frames = readdirSync(images);
    expect(frames.length).toBeGreaterThan(3);
    for (const name of frames) {
      const bytes = readFileSync(join(images, name));
      const { label, boxes, nodes } = await model.predict({ kind: "encoded", bytes });
      expect([label, boxes!.length]).toEqual(["face", 1]);
      expect(nodes!.map(({ node, crop: at }) => [node, at])).toEqual([
        ["thing", 0],
        ["digit", 0],
      ]);
      for (const { heads, latencyMs } of nodes!) {
        expect(heads[0]!.kind === "classification" && heads[0].probabilities.length).toBe(10);
        expect(latencyMs).toBeGreaterThan(0);
      }
    }
    console.log(
      `faces again: ${frames.length} of ${frames.length} frames with a face, each classified twice`,
    );
  });

  it("hear speech with carried state, and only then run the model behind", { timeout: 60_000 }, async () => {
    const parts = new Map([
      ["root", await imported("silero-vad/silero_vad.onnx", "silero-vad", "voice")],
      ["again", await imported("silero-vad/silero_vad_16k_op15.onnx", "silero-vad", "voice-again")],
    ]);
    const spec: PipelineSpec = {
      model: "two-stages",
      version: 1,
      description: "",
      root: "voice",
      nodes: [
        {
          name: "again",
          package: "voice-again",
          from: { kind: "frame" },
          when: { node: "root", head: "speech", labels: ["speech"], confidenceMin: 0.5 },
        },
      ],
    };
    const model = await opened(
      await buildPipeline(join(scratch.path, "two-stages"), spec, parts, { created: CREATED }),
    );
    const samples = readWave(join(dataFolder, "sets/silero-audio/test.wav"));
    let frames = 0;
    let speech = 0;
    let agreed = 0;
    for (let at = 0; at + 512 <= samples.length; at += 512) {
      const prediction = await model.predict({ kind: "window", samples: samples.slice(at, at + 512) });
      frames++;
      if (prediction.label === "speech") speech++;
      expect(prediction.nodes).toHaveLength(prediction.label === "speech" ? 1 : 0);
      const head = prediction.nodes![0]?.heads[0];
      if (head !== undefined && "label" in head && head.label === "speech") agreed++;
    }
    const percent = (speech / frames) * 100;
    console.log(
      `two stages: speech in ${percent.toFixed(1)} % of ${frames} frames, agreed to in ${agreed} of ${speech}`,
    );
    expect(Math.abs(percent - 77.4)).toBeLessThanOrEqual(0.5);
    expect(agreed / speech).toBeGreaterThan(0.9);
  });
});
