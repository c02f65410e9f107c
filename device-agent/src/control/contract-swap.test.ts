import { join } from "node:path";
import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { type ManifestDraft, type ModelPackage, writePackage } from "@fieldloop/runtime/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pngOf } from "../testing/images.test.kit.js";
import { LaneStage } from "../testing/lanes.test.kit.js";
import { until } from "../testing/fleet.test.kit.js";

/**
 * A version may have other inputs, outputs, state and classes than the one before: what turns a frame into a prediction travels with it. One
 * agent with its real inference host takes such versions in and goes back.
 */
const stage = new LaneStage();
beforeEach(() => stage.open());
afterEach(() => stage.close());

const WIDTH = 12;
const HEIGHT = 16;
const VALUES = WIDTH * HEIGHT * 3;
const LABELS = ["night", "dusk", "day"];

/**
 * Another contract for the images of `brightness`: 12×16 RGB, channels last, in bytes; a constant and a state tensor beside it; three
 * classes as probabilities. The state is the mean brightness so far, halved with each frame.
 */
function writeOtherImagePackage(dir: string, version: number): Promise<ModelPackage> {
  const graph = new GraphBuilder();
  const frame = graph.input("camera/frame", "float32", [1, HEIGHT, WIDTH, 3]);
  const share = graph.input("share", "float32", [1, 1]);
  const before = graph.input("memory_in", "float32", [1, 1]);
  const [flat] = graph.node("Flatten", [frame], { axis: { i: 1 } });
  const mean = graph.initializer(
    float32Tensor("mean", [1, VALUES], new Array<number>(VALUES).fill(1 / VALUES / 255)),
  );
  const [level] = graph.node("Gemm", [flat!, mean], { transB: { i: 1 } });
  const [now] = graph.node("Mul", [level!, share]);
  const [kept] = graph.node("Mul", [before, share]);
  graph.node("Add", [now!, kept!], {}, ["memory_out"]);
  const slopes = graph.initializer(float32Tensor("slopes", [3, 1], [-20, 0, 20]));
  const offsets = graph.initializer(float32Tensor("offsets", [3], [6, 0, -6]));
  const [logits] = graph.node("Gemm", ["memory_out", slopes, offsets], { transB: { i: 1 } });
  graph.node("Softmax", [logits!], { axis: { i: 1 } }, ["chances"]);
  graph.output("chances", "float32", [1, 3]);
  graph.output("memory_out", "float32", [1, 1]);
  const image = { kind: "image", name: "camera/frame", width: WIDTH, height: HEIGHT, colour: "rgb" } as const;
  return write(dir, graph, {
    model: "brightness",
    version,
    inputs: [
      { ...image, resize: "stretch", layout: "nhwc", range: "byte" },
      { kind: "constant", name: "share", elementType: "float32", dims: [1, 1], values: [0.5] },
      { kind: "state", name: "memory_in", output: "memory_out", dims: [1, 1] },
    ],
    heads: [
      {
        kind: "classification",
        name: "time of day",
        output: "chances",
        labels: LABELS,
        values: "probabilities",
      },
    ],
  });
}

/** Another contract for the windows of `loudness`: a quarter of the length, with context, a regression beside five classes. */
function writeOtherWindowPackage(dir: string, version: number): Promise<ModelPackage> {
  const length = 64;
  const context = 16;
  const graph = new GraphBuilder();
  const samples = graph.input("samples", "float32", [1, length + context]);
  const [magnitudes] = graph.node("Abs", [samples]);
  const rows = (count: number): number[] =>
    new Array<number>(count * (length + context)).fill(1 / (length + context));
  const weight = graph.initializer(float32Tensor("weight", [5, length + context], rows(5)));
  const offset = graph.initializer(float32Tensor("offset", [5], [0, 1, 2, 3, 4]));
  const level = graph.initializer(float32Tensor("level", [1, length + context], rows(1)));
  graph.node("Gemm", [magnitudes!, weight, offset], { transB: { i: 1 } }, ["steps"]);
  graph.node("Gemm", [magnitudes!, level], { transB: { i: 1 } }, ["mean"]);
  graph.output("steps", "float32", [1, 5]);
  graph.output("mean", "float32", [1, 1]);
  const window = { kind: "window", name: "samples", length, context, hop: 32, sampleRateHz: 2_560 } as const;
  return write(dir, graph, {
    model: "loudness",
    version,
    inputs: [{ ...window, normalization: "none", dims: [1, length + context] }],
    heads: [
      {
        kind: "classification",
        name: "step",
        output: "steps",
        labels: ["a", "b", "c", "d", "e"],
        values: "logits",
      },
      { kind: "regression", name: "mean", output: "mean", targets: [{ name: "mean" }] },
    ],
  });
}

function write(
  dir: string,
  graph: GraphBuilder,
  own: Pick<ManifestDraft, "model" | "version" | "inputs" | "heads">,
): Promise<ModelPackage> {
  const variant = { name: "fp32", file: "model.onnx", precision: "fp32", opset: 17 } as const;
  const lineage = {
    base: null,
    snapshot: null,
    trainer: "by hand",
    settings: {},
    libraries: {},
    metrics: {},
  };
  const common = {
    schema: 1,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
  } as const;
  return writePackage(
    dir,
    { ...common, ...own, variants: [{ ...variant, executionProviders: ["cpu"] }], lineage },
    { "model.onnx": encodeModel(graph.build({ opset: 17 })) },
  );
}

describe("versions with another contract", { timeout: 120_000 }, () => {
  it("are taken in and left again, in both lanes at once, without a lost frame", async () => {
    const { fleet } = stage;
    // So slow that a machine that stands still for half a second makes a source miss nothing: what is lost, the swap lost.
    const sources = [
      "simulator:parts?fps=5&model=brightness",
      "spindle=simulator:bearing?fps=5&model=loudness",
    ];
    const steps: [string, string, () => Promise<ModelPackage>, () => Promise<ModelPackage>][] = [
      ["a", "light", () => stage.image(1), () => stage.sound(1)],
      [
        "b",
        "day",
        () => writeOtherImagePackage(join(stage.path, "b"), 2),
        () => writeOtherWindowPackage(join(stage.path, "bw"), 2),
      ],
      ["c", "light", () => stage.image(3), () => stage.sound(3)],
    ];
    const agent = await stage.start(sources);
    for (const [name, label, image, sound] of steps) {
      const assignments = [
        await stage.publish(image(), `${name}-image`),
        await stage.publish(sound(), `${name}-sound`, "spindle"),
      ];
      fleet.desire(assignments);
      await stage.isActive(`${name}-image`, `${name}-sound`);
      for (const { model, version } of assignments) {
        const isStored = (): boolean =>
          fleet.predictions.some(
            ({ versionRef }) => versionRef.model === model && versionRef.version === version,
          );
        await until(isStored, `${model}@${version} predicts`);
      }
      await expectLabel(agent.localUrl, label);
      if (name === "a") continue;
      for (const deployment of [`${name}-image`, `${name}-sound`]) {
        const swap = fleet.events.find(
          ({ data }) =>
            data.type === "deployment" && data.deployment === deployment && data.state === "probation",
        );
        expect(swap?.data).toMatchObject({ measured: { framesDroppedDuringSwap: 0 } });
      }
    }
    expect(agent.state().lanes.map(({ framesFailed }) => framesFailed)).toEqual([0, 0]);
    await agent.stop();
    stage.expectAllStored();
  });
});

/** A white image is whatever the version that runs calls it; a state that begins at zero needs some frames. */
async function expectLabel(localUrl: string, label: string): Promise<void> {
  const body = await pngOf(255);
  const ask = async (): Promise<string> => {
    const headers = { "content-type": "image/png" };
    const response = await fetch(`${localUrl}/v1/predict`, {
      method: "POST",
      headers,
      body: body as Uint8Array<ArrayBuffer>,
    });
    return ((await response.json()) as { label: string }).label;
  };
  await expect.poll(ask, { timeout: 30_000 }).toBe(label);
}
