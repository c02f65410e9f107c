import { describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../../limits.js";
import { judgeShadow, type ShadowProgress } from "./judge.js";
import { isStuck } from "./session.js";
import { ShadowTotals } from "./totals.js";

const terms = { seconds: 60, predictions: 100, cpuShareMax: 0.1 };
const totals = {
  frames: 1_000,
  compared: 200,
  failed: 0,
  quickMs: 5,
  activeMeanMs: 4,
  lastFailure: undefined,
};
const at = (elapsedMs: number, change: Partial<ShadowProgress["totals"]> = {}, activeThreads = 1): boolean =>
  judgeShadow(terms, { elapsedMs, totals: { ...totals, ...change }, activeThreads });

describe("the end of a shadow", () => {
  it("comes after both its seconds and its predictions", () => {
    expect(at(59_999)).toBe(false);
    expect(at(60_000)).toBe(true);
    expect(at(600_000, { compared: 99 })).toBe(false);
    expect(
      judgeShadow({ ...terms, seconds: 0, predictions: 0 }, { elapsedMs: 0, totals, activeThreads: 1 }),
    ).toBe(true);
  });
  it("comes in the end where too few frames come", () => {
    const limitMs = Math.max(AGENT_LIMITS.shadowTimeoutMinMs, 60_000 * AGENT_LIMITS.shadowSlack);
    expect(at(limitMs, { compared: 99 })).toBe(false);
    expect(() => at(limitMs + 1, { compared: 99 })).toThrow(expect.objectContaining({ code: "timed_out" }));
  });
  it("is a failure where more than a tenth of the frames found no answer, as soon as there are enough to tell", () => {
    const lastFailure = { code: "model_run_failed", message: "why" } as const;
    expect(at(1_000, { compared: 10, failed: 9, lastFailure })).toBe(false);
    expect(() => at(1_000, { compared: 17, failed: 3, lastFailure })).toThrow(
      expect.objectContaining({ code: "shadow_failed", message: expect.stringContaining("3 of 20") }),
    );
    expect(at(1_000, { compared: 18, failed: 2 })).toBe(false);
    // At the end fewer will do.
    expect(() =>
      judgeShadow(
        { ...terms, predictions: 5 },
        { elapsedMs: 60_000, totals: { ...totals, compared: 5, failed: 1, lastFailure }, activeThreads: 1 },
      ),
    ).toThrow(expect.objectContaining({ code: "shadow_failed" }));
  });
  it("is a failure where it is many times slower than the active version, and than its source", () => {
    // 1,000 frames in 10 s: one every 10 ms; four times the active version's 4 ms are 16.
    expect(at(10_000, { quickMs: 16 })).toBe(false);
    expect(() => at(10_000, { quickMs: 16.1 })).toThrow(expect.objectContaining({ code: "shadow_failed" }));
    // A source that leaves it the time, threads that it did not have, too few runs to tell.
    expect(at(50_000, { quickMs: 49 })).toBe(false);
    expect(at(10_000, { quickMs: 31 }, 2)).toBe(false);
    expect(at(10_000, { quickMs: 500, compared: 19 })).toBe(false);
  });
});

describe("a candidate that hangs", () => {
  const { runTimeoutMinMs, runTimeoutFirstMs, runTimeoutFactor, shadowStillMs } = AGENT_LIMITS;
  const beat = { runningMs: 0, runningCpuMs: 0, expectedMs: 10, residentBytes: 0 };
  it("is told by what its run has done", () => {
    expect(isStuck({ ...beat, runningMs: 60_000, runningCpuMs: runTimeoutMinMs }, 1_000)).toBe(false);
    expect(isStuck({ ...beat, runningMs: 60_000, runningCpuMs: runTimeoutMinMs + 1 }, 0)).toBe(true);
    expect(isStuck({ ...beat, expectedMs: 0, runningCpuMs: runTimeoutFirstMs }, 0)).toBe(false);
    const slow = 2 * runTimeoutMinMs;
    expect(isStuck({ ...beat, expectedMs: slow, runningCpuMs: runTimeoutFactor * slow }, 0)).toBe(false);
  });
  it("or does nothing at all for a long while", () => {
    expect(isStuck({ ...beat, runningMs: 1_000 }, shadowStillMs - 1_000)).toBe(false);
    expect(isStuck({ ...beat, runningMs: 1_001 }, shadowStillMs - 1_000)).toBe(true);
    expect(isStuck(beat, shadowStillMs + 1)).toBe(true);
    expect(isStuck(beat, shadowStillMs)).toBe(false);
  });
});

describe("the totals of a shadow", () => {
  const delta = {
    ...{ frames: 10, compared: 4, skipped: 5, failed: 1, disagreements: 2 },
    ...{ candidateMs: 20, activeMs: 8, cpuMs: 30, quickMs: 4 },
    flips: [["a", "b", 2]] as const,
    lastFailure: undefined,
  };
  it("add up, and name the most frequent changes of label first", () => {
    const sum = new ShadowTotals();
    sum.add(delta);
    sum.add({ ...delta, flips: Array.from({ length: 70 }, (_, n) => [`c${n}`, "d", n + 3] as const) });
    const pair = {
      deployment: "d",
      model: "m",
      version: 2,
      packageSha256: "ab".repeat(32),
      against: { version: 1, packageSha256: "cd".repeat(32) },
    };
    const event = sum.event(pair, { from: 1, to: 2, cpuShare: sum.cpuShare(1_000, 2) });
    expect(event).toMatchObject({
      ...{ type: "shadow", frames: 20, compared: 8, skipped: 10, failed: 2, disagreements: 4 },
      ...{ candidateMeanMs: 5, activeMeanMs: 2, cpuShare: 0.03 },
    });
    expect(event.classFlips.length).toBe(64);
    expect(event.classFlips[0]).toEqual(["c69", "d", 72]);
  });
});
