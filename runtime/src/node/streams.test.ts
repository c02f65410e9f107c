import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inputSchema, headSchema, type Head, type ModelInput, type SignalName } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { Predictor } from "../predict.js";
import type { Session } from "../backend.js";
import { ortNode } from "./ort.js";
import { scratchFolder } from "./small-packages.test.kit.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
let sessions: Session[] = [];
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(async () => {
  for (const session of sessions) await session.release();
  sessions = [];
  await scratch.remove();
});

interface Described {
  readonly inputs: readonly object[];
  readonly heads: readonly object[];
  readonly signals?: SignalName[];
}

async function openPredictor(model: Uint8Array | string, described: Described): Promise<Predictor> {
  const path = typeof model === "string" ? model : join(scratch.path, `${sessions.length}.onnx`);
  if (typeof model !== "string") await writeFile(path, model);
  const session = await ortNode.openSession(path, { threadCount: 1, executionProvider: "cpu" });
  sessions.push(session);
  const manifest = {
    inputs: described.inputs.map((input): ModelInput => inputSchema.parse(input)),
    heads: described.heads.map((head): Head => headSchema.parse(head)),
    signals: described.signals ?? [],
  };
  const sizeImage = async (): Promise<never> => {
    throw new Error("no decoder wanted");
  };
  return new Predictor({ manifest, session, sizeImage, now: () => performance.now() });
}

const embedding = (output: string, length: number) => ({ name: output, kind: "embedding", output, length });
const windowFrame = (...samples: number[]) =>
  ({ kind: "window", samples: Float32Array.from(samples) }) as const;

/** y = sum(x) + state, and that is the next state: what came before shows in every output. */
function accumulator(): { model: Uint8Array; described: Described } {
  const graph = new GraphBuilder();
  const x = graph.input("x", "float32", [1, 4]);
  const state = graph.input("state:0", "float32", [1, 1]);
  const ones = graph.initializer(float32Tensor("ones", [4, 1], [1, 1, 1, 1]));
  const [sum] = graph.node("MatMul", [x, ones]);
  graph.node("Add", [sum!, state], {}, ["next"]);
  graph.node("Identity", ["next"], {}, ["y"]);
  graph.output("y", "float32", [1, 1]);
  graph.output("next", "float32", [1, 1]);
  const window = { kind: "window", name: "x", length: 2, hop: 2, context: 2, sampleRateHz: 1 };
  return {
    model: encodeModel(graph.build({ opset: 17 })),
    described: {
      inputs: [
        { ...window, normalization: "none", dims: [] },
        { kind: "state", name: "state:0", output: "next", dims: [1, 1] },
      ],
      heads: [embedding("y", 1)],
    },
  };
}

describe("streams with state and context", () => {
  const valueOf = async (predictor: Predictor, samples: number[], stream?: string) =>
    (await predictor.predict(windowFrame(...samples), stream)).embedding![0];

  it("carry both from frame to frame, each stream its own, from zeros on", async () => {
    const { model, described } = accumulator();
    const predictor = await openPredictor(model, described);
    expect(await valueOf(predictor, [1, 1])).toBe(2);
    // Context 1 + 1, new 10 + 10, state 2.
    expect(await valueOf(predictor, [10, 10])).toBe(24);
    expect(await valueOf(predictor, [5, 0], "other")).toBe(5);
    expect(await valueOf(predictor, [0, 0])).toBe(44);
    predictor.resetStream("main");
    expect(await valueOf(predictor, [1, 0])).toBe(1);
    expect(await valueOf(predictor, [0, 0], "other")).toBe(10);
  });
  it("look back on what lies before a window where windows overlap", async () => {
    const { model, described } = accumulator();
    const [window, ...others] = described.inputs;
    const predictor = await openPredictor(model, {
      ...described,
      inputs: [{ ...window, hop: 1 }, ...others],
    });
    expect(await valueOf(predictor, [1, 20])).toBe(21);
    // The signal is 1, 20, 300: before the window 20, 300 lie 0 and 1.
    expect(await valueOf(predictor, [20, 300])).toBe(1 + 320 + 21);
  });
  it("keep the order of calls that did not wait for each other", async () => {
    const { model, described } = accumulator();
    const predictor = await openPredictor(model, described);
    const values = await Promise.all([1, 2, 3, 4].map((value) => valueOf(predictor, [value, 0])));
    expect(values).toEqual([1, 4, 9, 16]);
  });
  it("stay as they were where a frame is refused or a state would not be finite", async () => {
    const { model, described } = accumulator();
    const predictor = await openPredictor(model, described);
    await valueOf(predictor, [1, 1]);
    await expect(valueOf(predictor, [1])).rejects.toMatchObject({ code: "window_invalid" });
    await expect(valueOf(predictor, [3e38, 3e38])).rejects.toMatchObject({
      code: "model_output_invalid",
    });
    expect(await valueOf(predictor, [0, 0])).toBe(4);
  });
  it("refuse a state that grows from frame to frame", async () => {
    const graph = new GraphBuilder();
    const x = graph.input("x", "float32", [1, 2]);
    const state = graph.input("cache", "float32", [1, "past"]);
    graph.node("Concat", [state, x], { axis: { i: 1 } }, ["longer"]);
    graph.node("Identity", [x], {}, ["y"]);
    graph.output("y", "float32", [1, 2]);
    graph.output("longer", "float32", [1, "all"]);
    const predictor = await openPredictor(encodeModel(graph.build({ opset: 17 })), {
      inputs: [
        { kind: "window", name: "x", length: 2, hop: 2, sampleRateHz: 1, normalization: "none", dims: [] },
        { kind: "state", name: "cache", output: "longer", dims: [1, 0] },
      ],
      heads: [embedding("y", 2)],
    });
    await expect(predictor.predict(windowFrame(1, 2))).rejects.toThrow(
      /Carry state "cache": output "longer" has 3 values, the state 1/,
    );
  });

  it("refuse a float16 state that is not finite", async () => {
    const graph = new GraphBuilder();
    const x = graph.input("x", "float32", [1, 1]);
    const state = graph.input("s", "float16", [1, 1]);
    const [half] = graph.node("Cast", [x], { to: { i: 10 } });
    graph.node("Add", [half!, state], {}, ["next"]);
    graph.node("Identity", [x], {}, ["y"]);
    graph.output("y", "float32", [1, 1]);
    graph.output("next", "float16", [1, 1]);
    const predictor = await openPredictor(encodeModel(graph.build({ opset: 17 })), {
      inputs: [
        { kind: "window", name: "x", length: 1, hop: 1, sampleRateHz: 1, normalization: "none", dims: [] },
        { kind: "state", name: "s", output: "next", elementType: "float16", dims: [1, 1] },
      ],
      heads: [embedding("y", 1)],
    });
    expect((await predictor.predict(windowFrame(60_000))).embedding![0]).toBe(60_000);
    await expect(predictor.predict(windowFrame(60_000))).rejects.toThrow(
      /"next" holds values that are not finite/,
    );
    // The state before it is still there, and a smaller step still fits.
    await expect(predictor.predict(windowFrame(-60_000))).resolves.toBeDefined();
  });

  it("give the tensors behind a prediction, and leave the stream alone where a frame is only prepared", async () => {
    const { model, described } = accumulator();
    const predictor = await openPredictor(model, described);
    await valueOf(predictor, [1, 1]);
    const prepared = await predictor.prepare(windowFrame(7, 7));
    expect([...(prepared.feeds["x"]!.data as Float32Array)]).toEqual([1, 1, 7, 7]);
    const detailed = await predictor.predictWith(windowFrame(2, 0), { alsoFetch: ["next"] });
    expect(Object.keys(detailed.outputs).sort()).toEqual(["next", "y"]);
    expect(detailed.outputs["next"]!.data[0]).toBe(6);
    expect(detailed.prediction.embedding![0]).toBe(6);
    expect(detailed.prepared.feeds["state:0"]!.data[0]).toBe(2);
  });
  it("take the frames of a batch one after the other", async () => {
    const { model, described } = accumulator();
    const predictor = await openPredictor(model, described);
    expect(predictor.batches).toBe(false);
    const items = await predictor.predictBatch([windowFrame(1, 0), windowFrame(2, 0), windowFrame(3, 0)]);
    expect(items.map((item) => (item.ok ? item.prediction.embedding![0] : item.error.code))).toEqual([
      1, 4, 9,
    ]);
  });
});

/** Rows of three numbers to two; `mix` subtracts the mean over the batch, as a graph that is no function of one row would. */
function rows(mix: boolean): { model: Uint8Array; described: Described } {
  const graph = new GraphBuilder();
  const x = graph.input("x", "float32", ["n", 3]);
  const weight = graph.initializer(float32Tensor("w", [3, 2], [1, 2, 3, 4, 5, 6]));
  const [product] = graph.node("MatMul", [x, weight]);
  if (mix) {
    const [mean] = graph.node("ReduceMean", [product!], { axes: { ints: [0] }, keepdims: { i: 1 } });
    graph.node("Sub", [product!, mean!], {}, ["y"]);
  } else graph.node("Identity", [product!], {}, ["y"]);
  graph.output("y", "float32", ["n", 2]);
  return {
    model: encodeModel(graph.build({ opset: 13 })),
    described: {
      inputs: [{ kind: "tensor", name: "x", elementType: "float32", dims: [0, 3] }],
      heads: [embedding("y", 2)],
    },
  };
}

const rowFrame = (...values: number[]) =>
  ({
    kind: "tensors",
    feeds: { x: { type: "float32", dims: [values.length / 3, 3], data: Float32Array.from(values) } },
  }) as const;

describe("batches", () => {
  const frames = [rowFrame(1, 0, 0), rowFrame(0, 1, 0), rowFrame(0, 0, 1)];
  const embeddings = async (predictor: Predictor, batch: Parameters<Predictor["predictBatch"]>[0]) =>
    (await predictor.predictBatch(batch)).map((item) =>
      item.ok ? [...item.prediction.embedding!] : item.error.code,
    );

  it("run together where the graph allows it, with the results of single runs", async () => {
    const { model, described } = rows(false);
    const predictor = await openPredictor(model, described);
    expect(predictor.batches).toBeUndefined();
    const wanted = [
      [1, 2],
      [3, 4],
      [5, 6],
    ];
    expect(await embeddings(predictor, frames)).toEqual(wanted);
    expect(predictor.batches).toBe(true);
    expect(await embeddings(predictor, [...frames, ...frames])).toEqual([...wanted, ...wanted]);
  });
  it("are refused by a trial where items influence each other", async () => {
    const { model, described } = rows(true);
    const predictor = await openPredictor(model, described);
    expect(await embeddings(predictor, frames)).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    expect(predictor.batches).toBe(false);
  });
  it("are tried on items that differ: of equal ones nothing tells", async () => {
    const { model, described } = rows(true);
    const black = rowFrame(0, 0, 0);
    const predictor = await openPredictor(model, described);
    expect(await embeddings(predictor, [black, black])).toEqual([
      [0, 0],
      [0, 0],
    ]);
    expect(predictor.batches).toBeUndefined();
    expect(await embeddings(predictor, [black, frames[1]!])).toEqual([
      [0, 0],
      [0, 0],
    ]);
    expect(predictor.batches).toBe(false);
  });
  it("give each frame its own error, and go one by one where frames do not fit together", async () => {
    const { model, described } = rows(false);
    const predictor = await openPredictor(model, described);
    const wrong = { kind: "tensors", feeds: {} } as const;
    expect(await embeddings(predictor, [frames[0]!, wrong, frames[2]!])).toEqual([
      [1, 2],
      "invalid_argument",
      [5, 6],
    ]);
    const items = await predictor.predictBatch([frames[0]!, rowFrame(1, 0, 0, 0, 1, 0)]);
    expect(items[0]).toMatchObject({ ok: true });
    expect(await embeddings(predictor, [])).toEqual([]);
    await expect(predictor.predictBatch(Array.from({ length: 257 }, () => frames[0]!))).rejects.toMatchObject(
      {
        code: "limit_exceeded",
      },
    );
  });
});

/** Folder with public models and data sets; it is not part of the project. */
const dataFolder = process.env.FIELDLOOP_TEST_DATA ?? "";
const hasData = dataFolder !== "" && existsSync(join(dataFolder, "models/silero-vad"));
const reason = hasData ? "" : " (skipped: FIELDLOOP_TEST_DATA names no folder with models and sets)";

describe.skipIf(!hasData)(`public models${reason}`, () => {
  const window = { kind: "window", name: "input", length: 512, hop: 512, context: 64, sampleRateHz: 16_000 };
  const silero = [
    { ...window, normalization: "none", dims: [0, 576] },
    { kind: "state", name: "state", output: "stateN", dims: [2, 0, 128] },
  ];
  const rate = { kind: "constant", name: "sr", elementType: "int64", dims: [], values: [16_000] };

  it.each([
    ["silero_vad.onnx", [...silero, rate]],
    ["silero_vad_16k_op15.onnx", [...silero, rate]],
    ["silero_vad_op18_ifless.onnx", [...silero, rate]],
    ["silero_vad_half.onnx", silero],
  ])(
    "%s hears speech in 77.4 ± 0.5 per cent of the frames, its state carried",
    { timeout: 60_000 },
    async (file, inputs) => {
      const predictor = await openPredictor(join(dataFolder, "models/silero-vad", file), {
        inputs,
        heads: [embedding("output", 1)],
      });
      const sound = readFileSync(join(dataFolder, "sets/silero-audio/test.wav")).subarray(44);
      const count = Math.floor(sound.length / 2 / 512);
      let speech = 0;
      for (let frame = 0; frame < count; frame++) {
        const at = (index: number) => sound.readInt16LE((frame * 512 + index) * 2) / 32_768;
        const samples = Float32Array.from({ length: 512 }, (_, index) => at(index));
        const { embedding: probability } = await predictor.predict({ kind: "window", samples });
        if (probability![0]! >= 0.5) speech++;
      }
      const percent = (speech / count) * 100;
      console.log(`${file}: ${percent.toFixed(2)} % of ${count} frames`);
      expect(Math.abs(percent - 77.4)).toBeLessThanOrEqual(0.5);
    },
  );

  it.each([
    ["Network.onnx", 147],
    ["Regression.onnx", 146],
  ])("iris-nn/%s classifies %d of 150 rows, one by one and in batches", async (file, wanted) => {
    const lines = readFileSync(join(dataFolder, "sets/iris/Iris.csv"), "utf8").trim().split(/\r?\n/);
    const names = lines[0]!.split(",");
    const number = (name: string) => ({ name, encoding: { kind: "number" } });
    const labels = ["Iris-setosa", "Iris-versicolor", "Iris-virginica"];
    const predictor = await openPredictor(join(dataFolder, "models/iris-nn", file), {
      inputs: [{ kind: "table", name: "input", columns: names.slice(1, 5).map(number), dims: [0, 4] }],
      heads: [{ name: "species", kind: "classification", output: "output", labels, values: "logits" }],
    });
    const cells = lines.slice(1).map((line) => line.split(","));
    const frames = cells.map(
      (row) =>
        ({ kind: "row", values: Object.fromEntries(names.map((name, at) => [name, row[at]!])) }) as const,
    );
    const rightOf = (found: readonly string[]) => found.filter((label, at) => label === cells[at]![5]).length;
    const single: string[] = [];
    for (const frame of frames) single.push((await predictor.predict(frame)).label);
    const batch = (await predictor.predictBatch(frames)).map((item) =>
      item.ok ? item.prediction.label : "",
    );
    expect(batch).toEqual(single);
    expect(predictor.batches).toBe(true);
    expect(rightOf(single)).toBe(wanted);
  });
});
