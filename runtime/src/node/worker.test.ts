import { spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratchFolder, writeBrightnessPackage, writeSlowPackage } from "./small-packages.test.kit.js";
import { ModelWorker } from "./worker.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
let worker: ModelWorker;
beforeEach(async () => {
  scratch = await scratchFolder();
  worker = new ModelWorker();
});
afterEach(async () => {
  await worker.stop();
  await scratch.remove();
});

const options = { threadCount: 1 };
const gray = (value: number) =>
  ({ kind: "pixels", data: new Uint8Array(16).fill(value), width: 4, height: 4, channels: 1 }) as const;
const slowFrame = () =>
  ({
    kind: "tensors",
    feeds: { x: { type: "float32", dims: [512, 512], data: new Float32Array(512 * 512).fill(1) } },
  }) as const;

describe("a model in a worker", () => {
  it("predicts, checks golden cases, and reports which package it runs", async () => {
    const pkg = await writeBrightnessPackage(join(scratch.path, "p"));
    await worker.start();
    const loaded = await worker.load("active", pkg.dir, options);
    expect(loaded).toMatchObject({
      packageSha256: pkg.packageSha256,
      variant: { name: "fp32" },
      executionProvider: "cpu",
    });
    const prediction = await worker.predict("active", gray(200));
    expect(prediction).toMatchObject({ class: 1, label: "light" });
    expect(prediction.embedding).toBeInstanceOf(Float32Array);
    expect(await worker.checkGolden("active")).toMatchObject({ cases: 1 });
    const outputs = await worker.runTensors("active", {
      image: { type: "float32", dims: [1, 1, 4, 4], data: new Float32Array(16) },
    });
    expect(Object.keys(outputs).sort()).toEqual(["embedding", "logits"]);
  });
  it("moves a frame's memory, unless it is kept or shared", async () => {
    await worker.start();
    await worker.load("active", (await writeBrightnessPackage(join(scratch.path, "p"))).dir, options);
    const moved = gray(10);
    await worker.predict("active", moved);
    expect(moved.data.length).toBe(0);
    const kept = gray(10);
    await worker.predict("active", kept, { keep: true });
    expect(kept.data.length).toBe(16);
    const shared = new Uint8Array(32).fill(10);
    await worker.predict("active", { ...gray(0), data: shared.subarray(0, 16) });
    expect(shared.length).toBe(32);
  });
  it("gives each of many large frames its own result, whatever lay in their memory before and whichever fail", async () => {
    await worker.start();
    await worker.load("active", (await writeBrightnessPackage(join(scratch.path, "p"))).dir, options);
    const side = 256;
    const large = (value: number, bytes = side * side) =>
      ({ ...gray(0), data: new Uint8Array(bytes).fill(value), width: side, height: side }) as const;
    for (let round = 0; round < 5; round++) {
      const light = large(230);
      const dark = large(20);
      const short = large(230, side * side - 1);
      const [one, other, items, failed, last] = await Promise.allSettled([
        worker.predict("active", light, { keep: true }),
        worker.predict("active", dark, { keep: true }),
        worker.predictBatch("active", [dark, short, light], { keep: true }),
        worker.predict("active", short, { keep: true }),
        worker.predict("active", dark, { keep: true }),
      ]);
      expect(one).toMatchObject({ value: { label: "light" } });
      expect(other).toMatchObject({ value: { label: "dark" } });
      expect(items).toMatchObject({
        value: [
          { prediction: { label: "dark" } },
          { error: { code: "image_undecodable" } },
          { prediction: { label: "light" } },
        ],
      });
      expect(failed).toMatchObject({ reason: { code: "image_undecodable" } });
      expect(last).toMatchObject({ value: { label: "dark" } });
      expect([light.data[0], dark.data[0], light.data.length]).toEqual([230, 20, side * side]);
    }
  });
  it("does not block its caller while it runs", async () => {
    await worker.start();
    await worker.load("slow", (await writeSlowPackage(join(scratch.path, "slow"))).dir, options);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const runs = Array.from({ length: 5 }, () => worker.predict("slow", slowFrame()));
    await Promise.all(runs);
    clearInterval(timer);
    // Runs take tens of milliseconds; a loop that they block comes round once a run.
    expect(ticks).toBeGreaterThan(2 * runs.length);
  });
  it("keeps the old model of a slot where the new one does not open, and codes what went wrong", async () => {
    const old = await writeBrightnessPackage(join(scratch.path, "old"));
    await worker.start();
    await worker.load("active", old.dir, options);
    await expect(worker.load("active", join(scratch.path, "nowhere"), options)).rejects.toMatchObject({
      name: "FieldloopError",
      code: "not_found",
    });
    expect((await worker.predict("active", gray(200))).label).toBe("light");
    await expect(worker.predict("empty", gray(0))).rejects.toMatchObject({ code: "not_found" });
    await worker.unload("active");
    await expect(worker.predict("active", gray(0))).rejects.toMatchObject({ code: "not_found" });
  });
  it("loads a candidate beside the active model and swaps between two frames, losing none", async () => {
    const one = await writeBrightnessPackage(join(scratch.path, "one"));
    const two = await writeBrightnessPackage(join(scratch.path, "two"), { version: 2, gain: 3 });
    await worker.start();
    await worker.load("a", one.dir, options);
    let slot = "a";
    let swapped = -1;
    const loading = worker.load("b", two.dir, options).then(async () => {
      await worker.checkGolden("b");
      slot = "b";
    });
    const answers: Promise<{ slot: string; energy: number }>[] = [];
    for (let frame = 0; frame < 400 && (swapped < 0 || frame < swapped + 20); frame++) {
      const used = slot;
      if (used === "b" && swapped < 0) swapped = frame;
      answers.push(
        worker
          .predict(used, gray(255))
          .then((prediction) => ({ slot: used, energy: prediction.signals.energy! })),
      );
      await sleep(1);
    }
    await loading;
    expect(swapped).toBeGreaterThan(0);
    for (const { slot: used, energy } of await Promise.all(answers)) {
      expect(energy).toBeCloseTo(used === "a" ? -4 : -12, 2);
    }
    await worker.unload("a");
  });
});

describe("streams and batches", () => {
  it("keep the instability of each stream apart, and forget the one that is reset", async () => {
    await worker.start();
    const { dir } = await writeBrightnessPackage(join(scratch.path, "p"), { signals: ["instability"] });
    await worker.load("active", dir, options);
    const instability = async (value: number, stream: string) =>
      (await worker.predict("active", gray(value), { stream })).signals.instability;
    expect(await instability(255, "left")).toBe(0);
    expect(await instability(0, "right")).toBe(0);
    expect(await instability(255, "right")).toBe(1);
    expect(await instability(255, "left")).toBe(0);
    await worker.resetStream("active", "right");
    expect(await instability(0, "right")).toBe(0);
    expect(await instability(0, "left")).toBe(1);
  });
  it("give every frame of a batch its prediction or its error", async () => {
    await worker.start();
    await worker.load("active", (await writeBrightnessPackage(join(scratch.path, "p"))).dir, options);
    const broken = { kind: "encoded", bytes: Uint8Array.of(1, 2, 3) } as const;
    const items = await worker.predictBatch("active", [gray(255), broken, gray(0)]);
    expect(items[0]).toMatchObject({ ok: true, prediction: { label: "light" } });
    expect(items[1]).toMatchObject({
      ok: false,
      error: { name: "FieldloopError", code: "image_type_refused" },
    });
    expect(items[2]).toMatchObject({ ok: true, prediction: { label: "dark" } });
  });
});

describe("without a thread", () => {
  it("answers alike, in order, and stops", async () => {
    const { dir } = await writeBrightnessPackage(join(scratch.path, "p"));
    const here = new ModelWorker({ thread: false });
    await here.start();
    await expect(here.start()).rejects.toMatchObject({ code: "conflict" });
    await here.load("active", dir, options);
    const frame = gray(255);
    const answers = [
      here.predict("active", frame),
      here.predict("active", gray(0)),
      here.predict("none", frame),
    ];
    expect((await answers[0]!).label).toBe("light");
    expect((await answers[1]!).label).toBe("dark");
    await expect(answers[2]).rejects.toMatchObject({ code: "not_found" });
    expect(frame.data.length).toBe(16);
    await here.stop();
    await expect(here.predict("active", frame)).rejects.toMatchObject({ code: "unavailable" });
    await here.start();
    await expect(here.predict("active", frame)).rejects.toMatchObject({ code: "not_found" });
    await here.stop();
  });
});

describe("stop", () => {
  it("finishes what was asked before, refuses what comes after, and can be called twice", async () => {
    await worker.start();
    await worker.load("slow", (await writeSlowPackage(join(scratch.path, "slow"))).dir, options);
    const runs = [worker.predict("slow", slowFrame()), worker.predict("slow", slowFrame())];
    const stopping = worker.stop();
    await expect(worker.predict("slow", slowFrame())).rejects.toMatchObject({ code: "unavailable" });
    await Promise.all([stopping, worker.stop()]);
    for (const prediction of await Promise.all(runs)) expect(prediction.embedding![0]).toBeCloseTo(1, 4);
    await expect(worker.load("slow", "x", options)).rejects.toMatchObject({ code: "unavailable" });
  });
  it("leaves a worker that can start again", { timeout: 60_000 }, async () => {
    const pkg = await writeBrightnessPackage(join(scratch.path, "p"));
    for (let round = 0; round < 3; round++) {
      await worker.start();
      await worker.load("active", pkg.dir, options);
      expect((await worker.predict("active", gray(0))).label).toBe("dark");
      await worker.stop();
    }
  });
  it("without a start is nothing", async () => {
    await worker.stop();
  });
  it("in the middle of runs ends the process cleanly, at ten moments", { timeout: 120_000 }, async () => {
    const { dir } = await writeSlowPackage(join(scratch.path, "slow"));
    const module = fileURLToPath(new URL("./worker.js", import.meta.url));
    const script = `
      import { ModelWorker } from ${JSON.stringify(module)};
      for (let round = 0; round < 10; round++) {
        const worker = new ModelWorker();
        await worker.start();
        await worker.load("slow", ${JSON.stringify(dir)}, { threadCount: 1 });
        const data = new Float32Array(512 * 512);
        const frame = { kind: "tensors", feeds: { x: { type: "float32", dims: [512, 512], data } } };
        const runs = [worker.predict("slow", frame, { keep: true }), worker.predict("slow", frame)];
        await new Promise((resolve) => setTimeout(resolve, round * 4));
        await worker.stop();
        await Promise.all(runs);
      }
      console.log("clean");
    `;
    const { code, signal, output } = await runNode(script);
    expect({ code, signal, output }).toEqual({ code: 0, signal: null, output: "clean\n" });
  });
});

async function runNode(
  script: string,
): Promise<{ code: number | null; signal: string | null; output: string }> {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.once("close", (...ended) => resolve(ended)),
  );
  return { code, signal, output };
}
