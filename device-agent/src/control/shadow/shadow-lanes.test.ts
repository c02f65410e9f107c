import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parsePredictionId } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AGENT_LIMITS } from "../../limits.js";
import { until } from "../../testing/fleet.test.kit.js";
import { writeSumPackage, writeTestPackage, writeWindowPackage } from "../../testing/package.test.kit.js";
import { EVERY_FRAME, ShadowStage } from "../../testing/shadow.test.kit.js";

let stage: ShadowStage;
vi.setConfig({ testTimeout: 120_000 });
beforeEach(async () => {
  stage = new ShadowStage();
  await stage.open();
});
afterEach(() => stage.close());

async function show(frame: Frame): Promise<void> {
  const { prediction } = await stage.push(frame);
  const { n } = parsePredictionId(prediction)!;
  await until(() => stage.samples.some((sample) => sample.n === n), "the frame is offered to the sampler");
}

async function isBegun(): Promise<void> {
  await until(() => stage.isBegun, "the candidate is beside the active version");
}

/** Frames that the lane dropped while something went on. */
async function droppedDuring(work: () => Promise<unknown>): Promise<number> {
  const nextBeat = async (): Promise<number> => {
    const { beat } = stage;
    await until(() => stage.beat !== beat, "the host tells its counts");
    return stage.beat!.framesDropped;
  };
  const before = await nextBeat();
  await work();
  return (await nextBeat()) - before;
}

describe("a lane at 30 frames a second", () => {
  it("loses no frame to a candidate that takes far more than its share, and the share is kept to", async (test) => {
    const active = await writeTestPackage(join(stage.path, "active"), { version: 1 });
    const candidate = await writeTestPackage(join(stage.path, "candidate"), {
      version: 2,
      lightFrom: 0.7,
      slowFloats: true,
    });
    const source = "simulator:parts?fps=30";
    await stage.start(active, { source, sampling: { ...EVERY_FRAME, randomShare: 0 } });
    await until(() => (stage.beat?.framesSeen ?? 0) > 30, "frames come");
    // Far less than the candidate would take on a quick machine, where a run of it is over in ten milliseconds.
    const terms = { seconds: 3, predictions: 3, cpuShareMax: 0.03 };
    // Other programs on the machine may take the time of a frame: it is tried where, just before, they did not.
    const dropped: number[] = [];
    for (let attempt = 0; attempt < 4 && dropped.at(-1) !== 0; attempt++) {
      const alone = await droppedDuring(() => new Promise((resolve) => setTimeout(resolve, 1_500)));
      await stage.forget();
      const withCandidate = await droppedDuring(() => stage.shadow(candidate, terms));
      expectShareKept(terms.cpuShareMax);
      if (alone === 0) dropped.push(withCandidate);
    }
    test.skip(dropped.length === 0, "this machine is too busy to serve 30 frames a second alone");
    expect(dropped.at(-1)).toBe(0);
  });
});

function expectShareKept(cpuShareMax: number): void {
  const { frames, compared, skipped, failed, cpuShare, from, to } = stage.told.at(-1)!;
  expect(frames).toBe(compared + skipped + failed);
  expect(skipped).toBeGreaterThan(compared);
  const cores = availableParallelism();
  const cpuMs = cpuShare * (to - from) * cores;
  // What it saved up before it began, and what it had in hand when that was spent.
  const allowedMs = cpuShareMax * cores * (to - from + 1000 * AGENT_LIMITS.shadowBurstSeconds);
  const inHandMs = (2 * AGENT_LIMITS.shadowFramesInHandMax * cpuMs) / compared;
  expect(cpuMs).toBeLessThan(allowedMs + inHandMs);
}

describe("a candidate that carries something from frame to frame", () => {
  it("has a state of its own", async () => {
    await stage.start(await writeSumPackage(join(stage.path, "active")));
    const candidate = await writeSumPackage(join(stage.path, "candidate"), { version: 2, muchFrom: 5 });
    const outcome = stage.shadow(candidate, { predictions: 8 });
    await isBegun();
    // Sums 1 to 8 from the begin of the stream on: they differ on 3 and 4.
    for (let at = 0; at < 8; at++) await show({ kind: "window", samples: Float32Array.of(1) });
    expect(await outcome).toMatchObject({
      ended: "passed",
      ...{ compared: 8, disagreements: 2 },
    });
    expect(stage.told.at(-1)!.classFlips).toEqual([["much", "little", 2]]);

    // In the middle of a stream it knows nothing of what came before: the first frames only show it.
    await stage.forget();
    const again = stage.shadow(candidate, { predictions: 2 });
    await isBegun();
    const { shadowWarmFrames } = AGENT_LIMITS;
    for (let at = 0; at < shadowWarmFrames + 2; at++) {
      await show({ kind: "window", samples: Float32Array.of(0) });
    }
    expect(await again).toMatchObject({
      ...{ frames: shadowWarmFrames + 2, compared: 2, skipped: shadowWarmFrames },
    });
  });

  it("gets the signal cut as it wants it", async () => {
    // Windows of 256, each 128 behind the one before; the candidate wants them of 512.
    await stage.start(await writeWindowPackage(join(stage.path, "active"), { version: 1 }));
    const candidate = await writeWindowPackage(join(stage.path, "candidate"), { version: 2, length: 512 });
    const outcome = stage.shadow(candidate, { predictions: 4 });
    await isBegun();
    const warm = AGENT_LIMITS.shadowWarmFrames;
    for (let at = 0; stage.counted("compared") < 4 && at < warm + 20; at++) {
      await show({ kind: "window", samples: new Float32Array(256).fill(0.9) });
    }
    expect(await outcome).toMatchObject({
      ended: "passed",
      ...{ disagreements: 0, failed: 0 },
    });
  });
});

describe("a host that ends", () => {
  it("ends no shadow: with the next one it begins anew, and counts on", async () => {
    const active = await writeTestPackage(join(stage.path, "active"), { version: 1 });
    const candidate = await writeTestPackage(join(stage.path, "candidate"), { version: 2, lightFrom: 0.7 });
    await stage.start(active);
    const gray = (level: number): Frame => ({
      kind: "pixels",
      data: new Uint8Array(64).fill(level),
      width: 8,
      height: 8,
      channels: 1,
    });
    const outcome = stage.shadow(candidate, { predictions: 12 });
    await isBegun();
    for (let at = 0; at < 6; at++) await show(gray(150));
    await until(() => stage.told.at(-1)!.compared === 6, "control knows of them");
    process.kill(stage.hostPid, "SIGKILL");
    await until(() => stage.candidates === 2, "the candidate is beside the next one");
    while (stage.told.at(-1)!.compared < 12) await stage.push(gray(240));
    expect(await outcome).toMatchObject({ ended: "passed" });
    const event = stage.told.at(-1)!;
    expect(event.disagreements).toBe(6);
    expect(event.from).toBe(stage.told[0]!.from);
    expect(stage.crashes).toEqual(["SIGKILL"]);
  });
});
