import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../testing/fleet.test.kit.js";
import { LaneStage } from "../testing/lanes.test.kit.js";
import { codeOf, reasonOf } from "./files.js";

const stage = new LaneStage();
beforeEach(() => stage.open());
afterEach(async () => {
  if (mounted) execFileSync("umount", ["--lazy", stage.stateDir]);
  mounted = false;
  await stage.close();
});

let mounted = false;

/** A disk of its own for the state, where this user may mount one. */
async function mountDisk(bytes: number): Promise<boolean> {
  await mkdir(stage.stateDir, { mode: 0o700 });
  try {
    const options = `size=${bytes},mode=700`;
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", stage.stateDir], { stdio: "pipe" });
    mounted = true;
  } catch (error) {
    console.log(`a start on a full disk is not tested: ${reasonOf(error).trim()}`);
  }
  return mounted;
}

/** Writes until nothing more fits. */
async function fill(path: string): Promise<void> {
  const file = await open(path, "w");
  try {
    for (let size = 1 << 20; size >= 1; size >>= 1) {
      try {
        for (;;) await file.write(Buffer.alloc(size));
      } catch (error) {
        if (codeOf(error) !== "ENOSPC") throw error;
      }
    }
  } finally {
    await file.close();
  }
}

describe("a device that is switched on with a full disk", () => {
  it("predicts, says what is wrong, and keeps space for the next time when there is some", async ({
    skip,
  }) => {
    if (!(await mountDisk(96 << 20))) skip();
    const reserve = join(stage.stateDir, "reserve.bin");
    stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
    await stage.start(["simulator:parts?fps=30"]);
    await stage.isActive("d1");
    await until(() => existsSync(reserve), "space is kept");
    const first = stage.agent.boot;
    await stage.agent.stop();

    const rest = join(stage.stateDir, "rest");
    await fill(rest);
    await stage.start(["simulator:parts?fps=30"]);
    expect(stage.agent.boot).toBe(first + 1);
    await stage.predicts(20, "it predicts");
    expect(existsSync(reserve)).toBe(false);
    await stage.agent.stop();
    stage.expectAllStored();

    await rm(rest);
    await stage.start(["simulator:parts?fps=30"]);
    await until(() => existsSync(reserve), "space is kept again");
    await stage.predicts(1, "it predicts");
    await stage.agent.stop();
  }, 120_000);
});
