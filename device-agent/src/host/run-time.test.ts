import { describe, expect, it } from "vitest";
import { RunTime } from "./run-time.js";

/** How often `turns` turns with eight frames waiting took them together. */
function batches(times: RunTime, turns: number, singleMs: number, batchedMs: number): number {
  let together = 0;
  for (let turn = 0; turn < turns; turn++) {
    const count = times.batchOf(8, 4);
    if (count > 1) together++;
    times.note(count, count === 1 ? singleMs : batchedMs * count);
  }
  return together;
}

describe("RunTime", () => {
  it("runs one frame where nothing else waits, and never more than there are or are allowed", () => {
    const times = new RunTime();
    times.note(1, 10);
    expect([times.batchOf(0, 4), times.batchOf(1, 4), times.batchOf(3, 4), times.batchOf(9, 4)]).toEqual([
      0, 1, 3, 4,
    ]);
    expect(times.batchOf(9, 1)).toBe(1);
  });

  it("runs frames together where that is faster, and one by one where it is not", () => {
    expect(batches(new RunTime(), 200, 10, 4)).toBeGreaterThan(190);
    expect(batches(new RunTime(), 200, 10, 10)).toBeLessThan(10);
  });

  it("finds out when the other way has become faster", () => {
    const times = new RunTime();
    batches(times, 200, 10, 20);
    expect(batches(times, 2_000, 10, 2)).toBeGreaterThan(500);
  });

  it("knows what a run of so many frames takes", () => {
    const times = new RunTime();
    expect(times.expectedMs(1)).toBe(0);
    times.note(1, 10);
    times.note(4, 12);
    expect(times.expectedMs(1)).toBe(10);
    expect(times.expectedMs(4)).toBe(12);
    times.forget();
    expect(times.expectedMs(4)).toBe(0);
  });
});
