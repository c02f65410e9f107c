import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { writePackage } from "@fieldloop/runtime/node";
import { AGENT_LIMITS } from "../limits.js";
import { openPlaced } from "./placement.js";

/** So much that every run on any machine takes less, and so little that none does. */
const [EVERY_RUN, NO_RUN] = [60_000, 1e-6];

describe("a model is opened", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "fieldloop-placement-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each([
    ["in the host's own thread where it is small and quick", 8, EVERY_RUN, true],
    ["in a thread of its own where it is small and slow", 8, NO_RUN, false],
    ["in the host's own thread where it is larger and quick", 640, EVERY_RUN, true],
    ["in a thread of its own where it is larger and slow", 640, NO_RUN, false],
    ["in a thread of its own where it takes long to open", 1_200, EVERY_RUN, false],
    ["in a thread of its own where that is asked for", 8, 0, false],
  ])("%s", async (name, width, runMsMax, isHere) => {
    const directory = await writeDense(join(folder, name.replaceAll(/[^a-z]+/g, "-")), width);
    const opened = await openPlaced(directory, { threadCount: 1, runMsMax, isBusy: false });
    try {
      expect(opened.isHere).toBe(isHere);
    } finally {
      await opened.worker.stop();
    }
  });

  it("in steps with time between them where frames run in the same thread", async () => {
    const directory = await writeDense(join(folder, "busy"), 8);
    const options = { threadCount: 1, runMsMax: EVERY_RUN };
    const openedAfter = async (isBusy: boolean): Promise<number> => {
      const begin = performance.now();
      const { worker } = await openPlaced(directory, { ...options, isBusy });
      await worker.stop();
      return performance.now() - begin;
    };
    await openedAfter(false);
    // Reading, checking, opening and two runs: a timer never ends early.
    expect(await openedAfter(true)).toBeGreaterThan(4 * AGENT_LIMITS.openStepPauseMs);
  });
});

/** A dense layer of `width` inputs and outputs: 4 bytes a weight. */
async function writeDense(directory: string, width: number): Promise<string> {
  const graph = new GraphBuilder();
  let at = graph.input("values", "float32", [1, width]);
  const weight = Float32Array.from({ length: width * width }, (_, index) => Math.sin(index) / width);
  [at] = graph.node("MatMul", [at, graph.initializer(float32Tensor("w", [width, width], weight))]) as [
    string,
  ];
  graph.node("Relu", [at], {}, ["values_out"]);
  graph.output("values_out", "float32", [1, width]);
  const manifest: Parameters<typeof writePackage>[1] = {
    schema: 1,
    model: "dense",
    version: 1,
    created: "2026-11-28T00:00:00Z",
    task: "embedding",
    licence: "Apache-2.0",
    inputs: [{ kind: "tensor", name: "values", elementType: "float32", dims: [1, width] }],
    heads: [{ name: "embedding", kind: "embedding", output: "values_out", length: width }],
    signals: [],
    variants: [
      { name: "fp32", file: "model.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  await writePackage(directory, manifest, { "model.onnx": encodeModel(graph.build({ opset: 17 })) });
  return directory;
}
