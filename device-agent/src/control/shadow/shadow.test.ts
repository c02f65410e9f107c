import { rm } from "node:fs/promises";
import { join } from "node:path";
import { parsePredictionId } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { until } from "../../testing/fleet.test.kit.js";
import {
  type TestPackageOptions,
  writeTestPackage,
  writeWindowPackage,
} from "../../testing/package.test.kit.js";
import { ShadowStage } from "../../testing/shadow.test.kit.js";

/** One host for all of them: nothing that a candidate does may end it. */
const stage = new ShadowStage();
let active: ModelPackage;
let packages = 0;
let hostPid: number;
vi.setConfig({ testTimeout: 120_000 });
beforeAll(async () => {
  await stage.open();
  active = await image({});
  await stage.start(active);
  hostPid = stage.hostPid;
});
beforeEach(() => stage.forget());
afterAll(async () => {
  expect(stage.hostPid).toBe(hostPid);
  expect(stage.crashes).toEqual([]);
  await stage.close();
});

/** Light from a brightness of 0.5 on; each with the version after the one before. */
function image(options: Partial<TestPackageOptions>): Promise<ModelPackage> {
  const version = ++packages;
  return writeTestPackage(join(stage.path, `image-${version}`), { version, lightFrom: 0.5, ...options });
}

/** 8×8 gray pixels of one brightness, 0..1; one of them black where `black` says so. */
function gray(brightness: number, black = false): Frame {
  const data = new Uint8Array(64).fill(Math.round(brightness * 255));
  if (black) data[0] = 0;
  return { kind: "pixels", data, width: 8, height: 8, channels: 1 };
}

/** Pushes a frame and waits until the candidate's answer to it, if any, is with its sample. */
async function show(frame: Frame): Promise<number> {
  const { prediction } = await stage.push(frame);
  const { n } = parsePredictionId(prediction)!;
  await until(() => stage.samples.some((sample) => sample.n === n), "the frame is offered to the sampler");
  return n;
}

async function isBegun(): Promise<void> {
  await until(() => stage.isBegun, "the candidate is beside the active version");
}

describe("a candidate beside the active version", () => {
  it("is compared frame by frame, and what it says reaches nothing but counts and samples", async () => {
    // They differ on what lies between 0.5 and 0.7.
    const candidate = await image({ lightFrom: 0.7 });
    const { version } = candidate.manifest;
    const levels = [0.1, 0.3, 0.55, 0.6, 0.65, 0.75, 0.9, 0.2, 0.58, 0.95];
    const frames = Array.from({ length: 50 }, (_, at) => levels[at % levels.length]!);
    const isBetween = (level: number): boolean => level > 0.5 && level < 0.7;
    expect(frames.filter(isBetween).length).toBe(20);

    const outcome = stage.shadow(candidate, { predictions: frames.length });
    await isBegun();
    const levelOf = new Map<number, number>();
    for (const level of frames) levelOf.set(await show(gray(level)), level);
    const counts = { frames: 50, compared: 50, skipped: 0, failed: 0, disagreements: 20 };
    expect(await outcome).toMatchObject({
      ended: "passed",
      ...counts,
    });

    const event = stage.told.at(-1)!;
    expect(event).toMatchObject({
      type: "shadow",
      deployment: stage.deployment,
      model: "brightness",
      version,
      packageSha256: candidate.packageSha256,
      against: { version: 1, packageSha256: active.packageSha256 },
      ...counts,
      classFlips: [["light", "dark", 20]],
    });
    expect(event.candidateMeanMs).toBeGreaterThan(0);
    expect(event.activeMeanMs).toBeGreaterThan(0);
    expect(event.cpuShare).toBeGreaterThan(0);
    expect(new Set(stage.told.map(({ from }) => from)).size).toBe(1);

    for (const sample of stage.samples) {
      const level = levelOf.get(sample.n)!;
      expect(sample).toMatchObject({
        version: 1,
        label: level > 0.5 ? "light" : "dark",
        context: {
          shadow: { deployment: stage.deployment, version, label: level > 0.7 ? "light" : "dark" },
        },
      });
      expect(sample.signals.disagreement! >= 0.5).toBe(isBetween(level));
    }
    expectOnlyActive();
    expect(raised()).toEqual(new Set([...levelOf].filter(([, level]) => isBetween(level)).map(([n]) => n)));
    expect(stage.beat).toMatchObject({ framesDropped: 0, framesFailed: 0 });
  });

  it("may have other names for its classes: they are compared by name", async () => {
    const candidate = await image({ labels: ["dark", "bright"] });
    const outcome = stage.shadow(candidate, { predictions: 10 });
    await isBegun();
    for (let at = 0; at < 10; at++) await show(gray(at < 4 ? 0.9 : 0.1));
    expect(await outcome).toMatchObject({ disagreements: 4 });
    expect(stage.told.at(-1)!.classFlips).toEqual([["light", "bright", 4]]);
  });
});

/** Predictions and profiles are those of the active version alone. */
function expectOnlyActive(): void {
  for (const message of stage.said) {
    if (message.kind === "predictions") expect(message.origin.packageSha256).toBe(active.packageSha256);
    if (message.kind !== "profile") continue;
    expect(message.version).toBe(1);
    expect(message.statistics.signals).not.toHaveProperty("disagreement");
  }
}

/** Predictions whose `disagreement` is raised: in their row, or told where that was handed on already. */
function raised(): Set<number> {
  const numbers = new Set<number>();
  for (const message of stage.said) {
    if (message.kind === "disagreement") numbers.add(message.n);
    if (message.kind !== "predictions") continue;
    const at = message.origin.signalNames.indexOf("disagreement");
    message.rows.forEach((row, index) => row.signals[at]! >= 0.5 && numbers.add(message.firstN + index));
  }
  return numbers;
}

describe("a candidate that does harm", () => {
  it("crashes alone: the deployment fails, and the active version predicts on in the same host", async () => {
    const outcome = stage.shadow(await image({ deadlyWithoutBlack: true }), { predictions: 1_000 });
    await isBegun();
    await show(gray(0.2, true));
    // No pixel is black: the candidate's process dies of it.
    await stage.push(gray(0.9));
    await expect(outcome).rejects.toMatchObject({
      code: "shadow_failed",
      message: expect.stringMatching(/ended on frame [0-9a-f]{16}: SIG/),
    });
    const before = stage.predictions;
    for (let at = 0; at < 5; at++) expect((await stage.push(gray(0.9))).label).toBe("light");
    await until(() => stage.predictions >= before + 5, "it predicts on");
    expect(stage.beat).toMatchObject({ framesDropped: 0, framesFailed: 0 });
    expect(stage.told.at(-1)).toMatchObject({ frames: 2, compared: 1, skipped: 1, disagreements: 0 });
  });

  it("hangs alone: it is ended, and no frame waits for it", async () => {
    const outcome = stage.shadow(await image({ endlessWithoutBlack: true }), { predictions: 1_000 });
    const settled = outcome.catch((error: unknown) => error);
    let isOver = false;
    void settled.then(() => {
      isOver = true;
    });
    await isBegun();
    for (let at = 0; at < 3; at++) await show(gray(0.2, true));
    const before = stage.predictions;
    let pushed = 0;
    for (; !isOver; pushed++) {
      await stage.push(gray(0.9));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(await settled).toMatchObject({
      code: "shadow_failed",
      message: expect.stringContaining("did not come to an end on frame"),
    });
    await until(() => stage.predictions >= before + pushed, "every frame was answered");
    // What it had in hand is given up, the rest was never shown.
    const { frames, compared, skipped } = stage.told.at(-1)!;
    expect(compared).toBe(3);
    expect(frames).toBe(compared + skipped);
    expect(skipped).toBeGreaterThan(0);
  });

  it("fails where it cannot answer, and says why", async () => {
    const outcome = stage.shadow(await image({ lightFrom: Number.NaN }), { predictions: 1_000 });
    const settled = outcome.catch((error: unknown) => error);
    let isOver = false;
    void settled.then(() => {
      isOver = true;
    });
    await isBegun();
    while (!isOver) await show(gray(0.4));
    expect(await settled).toMatchObject({
      code: "shadow_failed",
      message: expect.stringContaining("model_output_invalid"),
    });
    expect(stage.told.at(-1)).toMatchObject({ compared: 0 });
    expect(stage.told.at(-1)!.failed).toBeGreaterThanOrEqual(20);
    expect(stage.beat?.framesFailed).toBe(0);
  });

  it("is ended where its process grows too large, and where it does not open", async () => {
    stage.bytesMax = 1024;
    await expect(stage.shadow(await image({}), { seconds: 60 })).rejects.toMatchObject({
      code: "shadow_failed",
      message: expect.stringMatching(/held \d+ MB/),
    });
    stage.bytesMax = 2 ** 30;
    const gone = await image({});
    await rm(gone.dir, { recursive: true });
    await expect(stage.shadow(gone)).rejects.toMatchObject({
      code: "shadow_failed",
      message: expect.stringContaining("does not open"),
    });
    expect((await stage.push(gray(0.9))).label).toBe("light");
  });
});

describe("a shadow", () => {
  it("ends at once when nobody wants it any more, and takes its process with it", async () => {
    const abort = new AbortController();
    const outcome = stage.shadow(await image({ lightFrom: 0.7 }), { seconds: 3_600 }, abort.signal);
    const settled = outcome.catch((error: unknown) => error);
    await isBegun();
    await show(gray(0.6));
    abort.abort();
    expect(await settled).toMatchObject({ code: "cancelled" });
    expect(stage.told.at(-1)).toMatchObject({ frames: 1, compared: 1, disagreements: 1 });
    const { signals } = await stage.push(gray(0.6));
    expect(signals).not.toHaveProperty("disagreement");
    expect(stage.counted("frames")).toBe(1);
  });

  it("has nothing to do beside the very package, and beside one that reads something else", async () => {
    expect(await stage.shadow(active)).toMatchObject({ ended: "nothing_to_compare", frames: 0 });
    const sound = await writeWindowPackage(join(stage.path, "sound"), { version: 2 });
    expect(await stage.shadow(sound)).toMatchObject({ ended: "not_comparable" });
    expect(stage.told).toEqual([]);
  });
});
