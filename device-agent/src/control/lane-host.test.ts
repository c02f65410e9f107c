import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../testing/fleet.test.kit.js";
import { pngOf } from "../testing/images.test.kit.js";
import { CAMERA, LaneStage, SPINDLE } from "../testing/lanes.test.kit.js";
import { writeTestPackage } from "../testing/package.test.kit.js";

/** A hang is waited for twice, and on a machine with much to do everything takes longer. */
const HANG_MS = 180_000;
/** Many times what a run takes on a machine with much to do, and a part of what a device waits: each second of it is one of a processor. */
const RUN_TIMES = { runTimeoutFirstMs: 4_000 };
/** As the tests of the whole have it: what takes minutes is left out otherwise. */
const isThorough = process.env["FIELDLOOP_TEST_THOROUGH"] === "1";

let stage: LaneStage;
beforeEach(async () => {
  stage = new LaneStage();
  await stage.open();
});
afterEach(() => stage.close());

describe("a host that must go", () => {
  it("is started anew in order when it holds too much memory, without a loss", async () => {
    stage.fleet.desire([
      await stage.publish(stage.image(), "d1"),
      await stage.publish(stage.sound(), "s1", "spindle"),
    ]);
    await stage.start([CAMERA, SPINDLE]);
    await stage.isActive("d1", "s1");
    await stage.agent.stop();
    await stage.start([CAMERA, SPINDLE], { hostBytesMax: 1024 * 1024 });
    await until(() => stage.agent.state().counters.hostRestarts === 1, "it is started anew");
    const { predictions } = stage.agent.state().counters;
    await until(() => stage.predictions > predictions + 20, "both lanes go on");
    expect(stage.fleet.online).toBe(true);
    // A ceiling that even a new host is above is said, not followed for ever.
    await until(
      () =>
        stage.agent
          .state()
          .warnings.some(
            ({ code, message }) => code === "host_memory_exceeded" && message.includes("give it more"),
          ),
      "it asks for more",
    );
    expect(stage.agent.state().counters.hostRestarts).toBe(1);
    expect(stage.fleet.events.some(({ data }) => data.type === "crash")).toBe(false);
    await stage.agent.stop();
    stage.expectAllStored();
  }, 120_000);

  // With more frames than it can take, two are in hand when it hangs: which of them it was, the next host finds out.
  it.each(isThorough ? [10, 200] : [10])(
    "is killed when a run never ends, and the frame is not run again (%i fps)",
    async (fps) => {
      const images = join(stage.path, "images");
      await mkdir(images);
      // Gray without black: what this graph loops over for ever. The other one has black pixels, and shows how long a run takes.
      const endlessImage = await pngOf(128);
      await writeFile(join(images, "a.png"), await pngOf(0));
      await writeFile(join(images, "b.png"), endlessImage);
      const endless = writeTestPackage(join(stage.path, "endless"), {
        version: 1,
        endlessWithoutBlack: true,
      });
      const assignment = await stage.publish(endless, "d1");
      stage.fleet.desire([
        { ...assignment, probation: { seconds: 0, predictions: 0 } },
        await stage.publish(stage.sound(), "s1", "spindle"),
      ]);
      await stage.start([`folder:${images}?fps=${fps}`, SPINDLE], { runTimes: RUN_TIMES });
      const quarantine = join(stage.path, "state", "quarantine.json");
      await until(() => existsSync(quarantine), "the frame is put away", HANG_MS);
      expect(stage.fleet.online).toBe(true);
      const { frames } = JSON.parse(await readFile(quarantine, "utf8")) as { frames: string[] };
      expect(frames).toEqual([createHash("sha256").update(endlessImage).digest("hex")]);
      await until(
        () => stage.fleet.events.some(({ data }) => data.type === "crash" && data.frameSha256 === frames[0]),
        "the crash is told",
      );
      const crash = stage.fleet.events.find(({ data }) => data.type === "crash");
      expect(crash?.data).toMatchObject({ reason: expect.stringContaining("unresponsive") });
      const { hostRestarts } = stage.agent.state().counters;
      const before = stage.stored(stage.agent.boot, "brightness").length;
      await until(
        () => stage.stored(stage.agent.boot, "brightness").length > before + 10,
        "the other frame is predicted on",
      );
      await until(
        () => stage.stored(stage.agent.boot, "loudness").length > 10,
        () => `and the other lane too (${stage.fleet.deploymentStates("s1").join(", ")})`,
        HANG_MS,
      );
      expect(stage.agent.state().counters.hostRestarts).toBe(hostRestarts);
    },
    300_000,
  );

  it("fails no version that is only just being activated in another lane", async () => {
    const images = join(stage.path, "images");
    await mkdir(images);
    await writeFile(join(images, "a.png"), await pngOf(0));
    await writeFile(join(images, "b.png"), await pngOf(128));
    const endless = writeTestPackage(join(stage.path, "endless"), { version: 1, endlessWithoutBlack: true });
    const hanging = {
      ...(await stage.publish(endless, "d1")),
      probation: { seconds: 0, predictions: 0 },
    };
    const other = await stage.publish(stage.sound(), "s1", "spindle");
    stage.fleet.desire([hanging]);
    await stage.start([`folder:${images}?fps=10`, SPINDLE], { runTimes: RUN_TIMES });
    await stage.isActive("d1");
    // The second frame hangs already; on a quiet machine the other version is tested long before the watchdog bites.
    stage.fleet.desire([hanging, other]);
    await until(() => stage.fleet.deploymentStates("s1").includes("active"), "it is active", HANG_MS);
    expect(stage.fleet.deploymentStates("s1")).not.toContain("failed");
  }, 300_000);
});

describe("heat", () => {
  it("slows lanes down and takes the cheaper variant, until it is over", async () => {
    const thermalPath = join(stage.path, "thermal");
    await mkdir(join(thermalPath, "thermal_zone0"), { recursive: true });
    const temperature = join(thermalPath, "thermal_zone0", "temp");
    await writeFile(temperature, "50000");
    const both = writeTestPackage(join(stage.path, "both"), { version: 1, withInt8: true });
    stage.fleet.desire([await stage.publish(both, "d1")]);
    const governorTimes = { holdMs: 200, restoreMs: 200, intervalMs: 200 };
    await stage.start(["simulator:parts?fps=50"], { thermalPath, governorTimes });
    await stage.isActive("d1");
    expect(stage.lane("main").running?.variant).toBe("fp32");
    await until(() => stage.lane("main").framesSeen > 60, "its rate is known");
    await writeFile(temperature, "95000");
    await until(() => stage.lane("main").rateMax !== null, "it is slowed down");
    expect(stage.lane("main").rateMax).toBeLessThanOrEqual(30);
    await until(() => stage.lane("main").running?.variant === "int8", "it takes the cheaper variant");
    const warning = stage.agent.state().warnings.find(({ code }) => code === "device_hot");
    expect(warning).toMatchObject({ severity: "warning", message: expect.stringContaining("95 °C") });
    const { predictions } = stage.agent.state().counters;
    await until(() => stage.predictions > predictions + 3, "it predicts on");
    await writeFile(temperature, "50000");
    await until(() => stage.lane("main").rateMax === null, "it gets its rate back");
    await until(() => stage.lane("main").running?.variant === "fp32", "and its variant");
    expect(stage.agent.state().warnings.some(({ code }) => code === "device_hot")).toBe(false);
  }, 120_000);
});
