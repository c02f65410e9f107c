import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { HostMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { until } from "../testing/fleet.test.kit.js";
import { makeTestLane } from "../testing/lane.test.kit.js";
import { scratchFolder, writeSumPackage } from "../testing/package.test.kit.js";
import type { Lane } from "./lane.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let said: HostMessage[];
let lane: Lane | undefined;
/** Milliseconds that each look at the clock takes. */
let stepMs: number;
beforeEach(async () => {
  folder = await scratchFolder();
  lane = undefined;
  said = [];
  stepMs = 0;
});
afterEach(async () => {
  await lane?.close();
  await lane?.finish();
  await folder.remove();
});

/** A lane of one frame a batch, with five frames that wait. */
async function open(): Promise<Lane> {
  const path = join(folder.path, "rows.ndjson");
  await writeFile(path, '{"x":1}\n'.repeat(5));
  const pkg = await writeSumPackage(join(folder.path, "package"));
  let now = 0;
  const opened = makeTestLane({
    folder: folder.path,
    source: `ndjson:${path}?columns=x&hz=10&pace=none&batch=1`,
    send: (message) => void said.push(message),
    clock: { now: () => Date.now(), monotonic: () => (now += stepMs) },
  });
  lane = opened;
  await opened.activate({ directory: pkg.dir, packageSha256: pkg.packageSha256 });
  await until(() => opened.beat(null).framesSeen === 5, "five frames wait");
  return opened;
}

async function predicted(): Promise<number> {
  await lane?.close();
  await lane?.finish();
  lane = undefined;
  return said.reduce((sum, message) => sum + (message.kind === "predictions" ? message.rows.length : 0), 0);
}

it("gives a quick model all that waits for it in one turn", async () => {
  const opened = await open();
  await opened.run();
  expect(opened.waitingSince).toBeUndefined();
  expect(await predicted()).toBe(5);
});

it("ends the turn of a slow one after a batch", async () => {
  const opened = await open();
  stepMs = AGENT_LIMITS.laneTurnMs;
  await opened.run();
  expect(opened.waitingSince).toBeDefined();
  expect(await predicted()).toBe(1);
});
