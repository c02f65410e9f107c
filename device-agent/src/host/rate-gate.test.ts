import { describe, expect, it } from "vitest";
import { RateGate } from "./rate-gate.js";

/** Frames of a source with so many a second that pass in ten seconds. */
function passed(gate: RateGate, fps: number): number {
  let count = 0;
  for (let frame = 0; frame < fps * 10; frame++) if (gate.take((frame * 1000) / fps)) count++;
  return count;
}

describe("RateGate", () => {
  it("lets everything through without a rate", () => {
    expect(passed(new RateGate(undefined, 0), 30)).toBe(300);
  });

  it.each([
    { fps: 30, rate: 10 },
    { fps: 30, rate: 7 },
    { fps: 25, rate: 24 },
    { fps: 1000, rate: 3 },
    { fps: 5, rate: 30 },
  ])("lets $rate of $fps a second through", ({ fps, rate }) => {
    const count = passed(new RateGate(rate, 0), fps);
    const wanted = Math.min(fps, rate) * 10;
    expect(count).toBeGreaterThanOrEqual(wanted - 1);
    expect(count).toBeLessThanOrEqual(wanted + 1);
  });

  it("takes the lower of two bounds, and gives the own one back", () => {
    const gate = new RateGate(20, 0);
    gate.limit(5);
    expect(gate.rateMax).toBe(5);
    expect(passed(gate, 40)).toBeLessThanOrEqual(51);
    gate.limit(undefined);
    expect(gate.rateMax).toBe(20);
  });

  it("says how long to wait", () => {
    const gate = new RateGate(10, 0);
    expect(gate.take(0)).toBe(true);
    expect(gate.waitMs(0)).toBeCloseTo(100);
    expect(gate.waitMs(100)).toBe(0);
  });
});
