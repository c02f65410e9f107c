import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parsePredictionId } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import { until } from "../../testing/fleet.test.kit.js";
import { writeSumPackage, writeTestPackage, writeWindowPackage } from "../../testing/package.test.kit.js";
import { ShadowStage } from "../../testing/shadow.test.kit.js";
import { join } from "node:path";

let stage: ShadowStage;
beforeEach(async () => {
  stage = new ShadowStage();
  await stage.open();
});
afterEach(() => stage.close());

/** 8×8 gray pixels of one brightness, 0..1; one of them black where `black` says so. */
function gray(brightness: number, black = false): Frame {
  const data = new Uint8Array(64).fill(Math.round(brightness * 255));
  if (black) data[0] = 0;
  return { kind: "pixels", data, width: 8, height: 8, channels: 1 };
}

const image = (name: string, options: Omit<Parameters<typeof writeTestPackage>[1], never>) =>
  writeTestPackage(join(stage.path, name), options);

/** Pushes a frame and waits until the candidate's answer to it, if any, is with its sample. */
async function show(frame: Frame): Promise<number> {
  const { prediction } = await stage.push(frame);
  const { n } = parsePredictionId(prediction)!;
  await until(() => stage.samples.some((sample) => sample.n === n), "the frame is offered to the sampler");
  return n;
}

describe("a candidate beside the active version", () => {
  it("is compared frame by frame, and what it says reaches nothing but counts and samples", async () => {
    // Light from 0.5 on, and from 0.7 on: they differ on what lies between.
    const active = await image("active", { version: 1, lightFrom: 0.5 });
    const candidate = await image("candidate", { version: 2, lightFrom: 0.7 });
    await stage.start(active);
    const levels = [0.1, 0.3, 0.55, 0.6, 0.65, 0.75, 0.9, 0.2, 0.58, 0.95];
    const frames = Array.from({ length: 50 }, (_, at) => levels[at % levels.length]!);
    const between = frames.filter((level) => level > 0.5 && level < 0.7).length;
    expect(between).toBe(20);

    const outcome = stage.shadow(candidate, { predictions: frames.length });
    await begun();
    const numbers = new Map<number, number>();
    for (const level of frames) numbers.set(await show(gray(level)), level);
    expect(await outcome).toMatchObject({
      ended: "passed",
      measured: {
        shadowFrames: 50,
        shadowCompared: 50,
        shadowSkipped: 0,
        shadowFailed: 0,
        shadowDisagreements: 20,
      },
    });

    const event = stage.told.at(-1)!;
    expect(event).toMatchObject({
      type: "shadow",
      deployment: "dep-1",
      model: "brightness",
      version: 2,
      packageSha256: candidate.packageSha256,
      against: { version: 1, packageSha256: active.packageSha256 },
      ...{ frames: 50, compared: 50, skipped: 0, failed: 0, disagreements: 20 },
      classFlips: [["light", "dark", 20]],
    });
    expect(event.candidateMeanMs).toBeGreaterThan(0);
    expect(event.activeMeanMs).toBeGreaterThan(0);
    expect(new Set(stage.told.map(({ from }) => from)).size).toBe(1);

    // Every sample says what both said.
    for (const sample of stage.samples) {
      const level = numbers.get(sample.n)!;
      expect(sample).toMatchObject({
        version: 1,
        label: level > 0.5 ? "light" : "dark",
        context: {
          shadow: { deployment: "dep-1", version: 2, label: level > 0.7 ? "light" : "dark" },
        },
      });
      expect(sample.signals.disagreement! >= 0.5).toBe(level > 0.5 && level < 0.7);
    }
    // Nothing of it is in predictions or profiles.
    const origins = stage.said.flatMap((message) => (message.kind === "predictions" ? [message.origin] : []));
    expect(new Set(origins.map(({ version }) => version))).toEqual(new Set([1]));
    await until(() => stage.said.some(({ kind }) => kind === "profile"), "a profile is cut");
    for (const message of stage.said) {
      if (message.kind !== "profile") continue;
      expect(message.version).toBe(1);
      expect(message.statistics.signals).not.toHaveProperty("disagreement");
    }
    // But the signal of the active prediction is raised: in its row, or told where that was handed on already.
    const raised = new Set<number>();
    for (const message of stage.said) {
      if (message.kind === "disagreement") raised.add(message.n);
      if (message.kind !== "predictions") continue;
      const at = message.origin.signalNames.indexOf("disagreement");
      message.rows.forEach((row, index) => row.signals[at]! >= 0.5 && raised.add(message.firstN + index));
    }
    expect(raised.size).toBe(20);
    for (const n of raised) expect(numbers.get(n)! > 0.5 && numbers.get(n)! < 0.7).toBe(true);
    expect(stage.restarts).toBe(0);
    expect(stage.beat).toMatchObject({ framesDropped: 0, framesFailed: 0 });
  });

  it("has its own names for classes, and a state of its own", async () => {
    const active = await writeSumPackage(join(stage.path, "active"));
    const candidate = await writeSumPackage(join(stage.path, "candidate"), { version: 2, muchFrom: 5 });
    await stage.start(active);
    const outcome = stage.shadow(candidate, { predictions: 8 });
    await begun();
    // Sums 1 to 8 from the begin of the stream on: they differ on 3 and 4.
    for (let at = 0; at < 8; at++) await show({ kind: "window", samples: Float32Array.of(1) });
    expect(await outcome).toMatchObject({
      ended: "passed",
      measured: { shadowCompared: 8, shadowDisagreements: 2 },
    });
    expect(stage.told.at(-1)!.classFlips).toEqual([["much", "little", 2]]);
  });
});

/** The host shows the candidate what comes from now on. */
async function begun(): Promise<void> {
  await until(() => stage.isBegun, "the candidate is beside the active version");
}
