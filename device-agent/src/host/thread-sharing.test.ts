import { rename } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FieldloopError } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import { scratchFolder, writeSumPackage, writeTestPackage } from "../testing/package.test.kit.js";
import type { HostModel } from "./model.js";
import { ModelPool } from "./model-pool.js";
import { ThreadSharing } from "./thread-sharing.js";

const LIGHT: Frame = { kind: "pixels", data: new Uint8Array(64).fill(255), width: 8, height: 8, channels: 1 };
/** So much that every run on any machine takes less. */
const EVERY_RUN_MS = 60_000;
/** So many frames in one millisecond of the clock are more than any thread can run. */
const FRAMES = 200;

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let pool: ModelPool;
let sharing: ThreadSharing;
let nowMs: number;
let troubles: FieldloopError[];
beforeEach(async () => {
  folder = await scratchFolder();
  nowMs = 0;
  troubles = [];
  pool = new ModelPool({ threadCount: 1, isShared: true, onProviderFailed: (error) => troubles.push(error) });
  const clock = { now: () => nowMs, monotonic: () => nowMs };
  sharing = new ThreadSharing({
    models: () => pool.models,
    clock,
    onTrouble: (error) => troubles.push(error),
  });
});
afterEach(async () => {
  for (const model of pool.models) await pool.release(model);
  await folder.remove();
});

const path = (name: string): string => join(folder.path, name);

async function open(name: string): Promise<HostModel> {
  const { dir, packageSha256 } = await writeTestPackage(path(name), { version: pool.models.length + 1 });
  return pool.acquire({ directory: dir, packageSha256 }, EVERY_RUN_MS);
}

/** Frames at once for each model; their labels. */
async function frames(models: readonly HostModel[]): Promise<string[]> {
  const runs = Array.from({ length: FRAMES }, (_, count) =>
    models.map((model) => model.predict([LIGHT], "lane", count === 0)),
  );
  const items = await Promise.all(runs.flat());
  return items.map(([item]) => (item?.ok ? item.prediction.label : String(item?.error)));
}

/** The clock goes on by one millisecond while they are answered; the next ones come while the lanes are looked at. */
async function crowd(models: readonly HostModel[]): Promise<string[]> {
  const labels = await frames(models);
  nowMs += 1;
  const looked = sharing.look();
  labels.push(...(await frames(models)));
  await looked;
  return labels;
}

describe("models of several lanes", () => {
  it("share the host's own thread until they wait for one another: then one moves, and no frame is lost", async () => {
    const models = [await open("a"), await open("b")];
    expect(models.map(({ isHere }) => isHere)).toEqual([true, true]);
    expect(new Set(await crowd(models))).toEqual(new Set(["light"]));
    expect(models.filter(({ isHere }) => isHere)).toHaveLength(1);
    // One alone has nobody who waits for it.
    expect(new Set(await crowd(models))).toEqual(new Set(["light"]));
    expect(models.filter(({ isHere }) => isHere)).toHaveLength(1);
    expect(troubles).toEqual([]);
  });

  it("stay where they are when they hardly meet", async () => {
    const models = [await open("a"), await open("b")];
    for (const model of models) await model.predict([LIGHT], "lane", true);
    nowMs += 1_000;
    await sharing.look();
    expect(models.map(({ isHere }) => isHere)).toEqual([true, true]);
  });

  it("that cannot be opened once more run on where they are, and are not tried again", async () => {
    const models = [await open("a"), await open("b")];
    for (const name of ["a", "b"]) await rename(path(name), path(`${name}-gone`));
    expect(new Set(await crowd(models))).toEqual(new Set(["light"]));
    expect(models.map(({ isHere }) => isHere)).toEqual([true, true]);
    await crowd(models);
    await crowd(models);
    expect(troubles).toHaveLength(2);
  });

  it("that carry something from frame to frame do not move", async () => {
    const { dir, packageSha256 } = await writeSumPackage(path("sum"));
    const sum = await pool.acquire({ directory: dir, packageSha256 }, EVERY_RUN_MS);
    const other = await open("b");
    const wasHere = sum.isHere;
    const sample: Frame = { kind: "window", samples: Float32Array.of(1) };
    for (let count = 0; count < 10 * FRAMES; count++) await sum.predict([sample], "lane", false);
    await crowd([other]);
    expect(sum.isHere).toBe(wasHere);
  });
});
