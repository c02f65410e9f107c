import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { HostMessage, PackageToRun } from "../ipc.js";
import { makeTestLane } from "../testing/lane.test.kit.js";
import { scratchFolder, writeTestPackage } from "../testing/package.test.kit.js";
import type { Lane } from "./lane.js";
import { Scheduler } from "./scheduler.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let said: HostMessage[];
let lane: Lane;
let scheduler: Scheduler;
beforeEach(async () => {
  folder = await scratchFolder();
  said = [];
  lane = makeTestLane({
    folder: folder.path,
    source: "http:0",
    send: (message) => void said.push(message),
    onWaiting: () => scheduler.wake(),
  });
  scheduler = new Scheduler({ tasks: [lane], threadCount: 1, now: () => performance.now() });
});
afterEach(async () => {
  await lane.close();
  await scheduler.stop();
  await lane.finish();
  await folder.remove();
});

async function target(version: number): Promise<PackageToRun> {
  const pkg = await writeTestPackage(join(folder.path, `v${version}`), { version, withInt8: true });
  return { directory: pkg.dir, packageSha256: pkg.packageSha256 };
}

describe("a variant that is asked for while another version comes", () => {
  it("is not taken of that one, which nobody meant", async () => {
    await lane.activate(await target(1));
    const first = lane.model!;
    const next = await target(2);
    const activating = lane.activate(next);
    expect(await lane.useVariant("int8", first)).toBeUndefined();
    await activating;
    expect([lane.model?.origin.version, lane.model?.variant]).toEqual([2, "fp32"]);
    expect(await lane.useVariant("int8", lane.model!)).toBe(lane.model);
    expect(lane.model?.variant).toBe("int8");
    expect(said.filter(({ kind }) => kind === "changed")).toHaveLength(1);
  });
});

describe("programs that push frames at the same time", () => {
  it("each have their answer, however few places there are", async () => {
    await lane.activate(await target(1));
    const { signal } = new AbortController();
    const frame = { kind: "pixels", data: new Uint8Array(64), width: 8, height: 8, channels: 1 } as const;
    const answers = await Promise.all(Array.from({ length: 12 }, () => lane.push(frame, signal)));
    expect(new Set(answers.map(({ id }) => id)).size).toBe(12);
    expect(lane.beat(null).framesDropped).toBe(0);
  });
});
