import { describe, expect, it } from "vitest";
import { CpuShare } from "./cpu-share.js";

const half = (): number => 0.5;

/** Frames every `everyMs` for `seconds`, each of which costs `costMs` where it is shown. */
function run(share: CpuShare, everyMs: number, seconds: number, costMs: (at: number) => number): number[] {
  const shown: number[] = [];
  for (let now = 0; now < seconds * 1000; now += everyMs) {
    if (!share.allows(now)) continue;
    shown.push(now);
    share.spent(costMs(now), now);
  }
  return shown;
}

describe("a share of the processor", () => {
  it.each([
    { shareMax: 0.1, cores: 2, costMs: 40 },
    { shareMax: 0.5, cores: 1, costMs: 7 },
    { shareMax: 0.02, cores: 4, costMs: 300 },
    { shareMax: 1, cores: 2, costMs: 5 },
  ])("is kept to over any longer time: $shareMax of $cores cores at $costMs ms a frame", (given) => {
    const { shareMax, cores, costMs } = given;
    const share = new CpuShare({ shareMax, cores, burstSeconds: 1, random: Math.random, nowMs: 0 });
    const seconds = 60;
    const shown = run(share, 1000 / 30, seconds, () => costMs);
    const allowedMs = shareMax * cores * 1000 * (seconds + 1) + costMs;
    expect(shown.length * costMs).toBeLessThanOrEqual(allowedMs);
    // And it is used: all frames, or nearly all that the share is worth.
    const worth = Math.min(seconds * 30, (shareMax * cores * 1000 * seconds) / costMs);
    expect(shown.length).toBeGreaterThanOrEqual(Math.floor(0.9 * worth));
  });

  it("follows what frames really cost", () => {
    const share = new CpuShare({ shareMax: 0.1, cores: 1, burstSeconds: 1, random: half, nowMs: 0 });
    const shown = run(share, 10, 40, (now) => (now < 20_000 ? 10 : 50));
    const early = shown.filter((now) => now < 20_000).length;
    // What was saved up at the begin is spent by then.
    expect(early).toBeGreaterThan(200);
    expect(shown.length - early).toBeLessThan(50);
    expect(shown.length - early).toBeGreaterThan(30);
  });

  it("does not show every n-th frame: a source that repeats itself is seen in all its phases", () => {
    const share = new CpuShare({ shareMax: 0.25, cores: 1, burstSeconds: 1, random: Math.random, nowMs: 0 });
    const shown = run(share, 10, 60, () => 10);
    const phases = new Map<number, number>();
    for (const now of shown.slice(200)) {
      const phase = (now / 10) % 4;
      phases.set(phase, (phases.get(phase) ?? 0) + 1);
    }
    const counts = [0, 1, 2, 3].map((phase) => phases.get(phase) ?? 0);
    expect(Math.min(...counts)).toBeGreaterThan(0.5 * Math.max(...counts));
  });

  it("is nothing where it is 0", () => {
    const share = new CpuShare({ shareMax: 0, cores: 8, burstSeconds: 10, random: half, nowMs: 0 });
    expect(run(share, 10, 5, () => 1)).toEqual([]);
    expect([share.allowsNext(9_000), share.allowsRun(9_000)]).toEqual([false, false]);
  });

  it("is saved up for frames in a row", () => {
    const share = new CpuShare({ shareMax: 0.1, cores: 1, burstSeconds: 10, random: half, nowMs: 0 });
    expect(share.allowsRun(0)).toBe(true);
    share.spent(1_000, 0);
    expect([share.allowsNext(0), share.allowsRun(0)]).toEqual([false, false]);
    expect([share.allowsNext(1_000), share.allowsRun(1_000)]).toEqual([true, false]);
    expect(share.allowsRun(5_000)).toBe(true);
  });
});
