import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createAgentLog } from "../log.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratchFolder } from "../testing/package.test.kit.js";
import { type Bandwidth, openBandwidth, type Traffic } from "./bandwidth.js";
import { Durable } from "./durable.js";

const DAY_MS = 24 * 3_600_000;
const RATE = 1_000;
let folder: Awaited<ReturnType<typeof scratchFolder>>;
let now: number;
let monotonic: number;
beforeEach(async () => {
  folder = await scratchFolder();
  now = 20_000 * DAY_MS + 3_600_000;
  monotonic = 0;
});
afterEach(() => folder.remove());

function open(): Promise<Bandwidth> {
  return openBandwidth({
    directory: folder.path,
    durable: new Durable(),
    clock: { now: () => now, monotonic: () => monotonic },
    bytesPerSecond: RATE,
    log: createAgentLog({ level: "error", write: () => undefined }),
    onCorrupt: (message) => {
      throw new Error(message);
    },
  });
}

const limits = (bytesPerDay: number | null, downloadBytesPerSecond: number | null = null) => ({
  bytesPerDay,
  downloadBytesPerSecond,
});

describe("bytes a second", () => {
  /** Both want the link all the time, in parts of 100 bytes; what travelled for each in 100 seconds. */
  async function contest(
    kind: Exclude<Traffic, "download">,
  ): Promise<{ telemetry: number; download: number }> {
    const bandwidth = await open();
    const sent = { telemetry: 0, download: 0 };
    const stop = new AbortController();
    const downloading = (async () => {
      while (!stop.signal.aborted) {
        await bandwidth.downloadReady(stop.signal);
        if (stop.signal.aborted) return;
        bandwidth.take("download", 100);
        sent.download += 100;
      }
    })();
    for (let second = 0; second < 100; second += 0.05) {
      monotonic += 50;
      if (bandwidth.waitMs(kind) <= 0) {
        bandwidth.take(kind, 100);
        sent.telemetry += 100;
      }
      bandwidth.waitMs(kind);
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (second > 50) break;
    }
    stop.abort();
    await downloading;
    await bandwidth.close();
    return sent;
  }

  it("are for all together; a download gets its part beside events, and more of it beside samples", async () => {
    const events = await contest("event");
    const samples = await contest("sample");
    for (const { telemetry, download } of [events, samples]) {
      expect(telemetry + download).toBeLessThanOrEqual(RATE * 60);
      expect(download).toBeGreaterThan(0);
    }
    expect(events.telemetry / events.download).toBeGreaterThan(2 * (samples.telemetry / samples.download));
  });

  it("of downloads follow a limit that changes while one is on its way", async () => {
    const bandwidth = await open();
    bandwidth.setLimits(limits(null, 100));
    bandwidth.take("download", 300);
    expect(bandwidth.waitMs("download")).toBeGreaterThan(1_900);
    expect(bandwidth.waitMs("event")).toBe(0);
    bandwidth.setLimits(limits(null));
    expect(bandwidth.waitMs("download")).toBeLessThanOrEqual(10);
    await bandwidth.close();
  });
});

describe("bytes a day", () => {
  it("end first for what is worth least, and never for events", async () => {
    const bandwidth = await open();
    bandwidth.setLimits(limits(10_000));
    const open2 = (kind: Traffic): boolean => {
      monotonic += 3_600_000;
      return bandwidth.waitMs(kind) <= 10;
    };
    bandwidth.take("sample", 9_000);
    const kinds: Traffic[] = ["event", "profile", "predictions", "sample", "download"];
    expect(kinds.map(open2)).toEqual([true, true, true, false, false]);
    bandwidth.take("predictions", 600);
    expect(kinds.map(open2)).toEqual([true, true, false, false, false]);
    bandwidth.take("profile", 600);
    expect(kinds.map(open2)).toEqual([true, false, false, false, false]);
    expect(bandwidth.downloadsResumeAt).toBe(20_001 * DAY_MS);
    now += DAY_MS;
    expect(kinds.map(open2)).toEqual([true, true, true, true, true]);
    await bandwidth.close();
  });

  it("are not given back by a restart, nor by a kill", async () => {
    const killed = await open();
    killed.setLimits(limits(1_000_000));
    killed.take("sample", 950_000);
    await expect
      .poll(async () =>
        JSON.parse(await readFile(join(folder.path, "bandwidth.json"), "utf8").catch(() => "{}")),
      )
      .toMatchObject({ day: 20_000 });
    const next = await open();
    next.setLimits(limits(1_000_000));
    expect(next.downloadsResumeAt).toBeDefined();
    await next.close();
    const last = await open();
    last.setLimits(limits(1_000_000));
    expect(last.downloadsResumeAt).toBeDefined();
    await last.close();
  });

  it("are not given back by a clock that goes back, and are one day late at most after one that was ahead", async () => {
    const bandwidth = await open();
    bandwidth.setLimits(limits(1_000));
    bandwidth.take("sample", 1_000);
    now -= 30 * DAY_MS;
    expect(bandwidth.downloadsResumeAt).toBeDefined();
    now += DAY_MS;
    expect(bandwidth.downloadsResumeAt).toBeUndefined();
    bandwidth.take("sample", 1_000);
    now += 400 * DAY_MS;
    expect(bandwidth.downloadsResumeAt).toBeUndefined();
    bandwidth.take("sample", 1_000);
    now -= 400 * DAY_MS;
    expect(bandwidth.downloadsResumeAt).toBeLessThanOrEqual(now + DAY_MS);
    await bandwidth.close();
  });
});
