import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { discordantPValue, wilson } from "./intervals.js";

describe("wilson", () => {
  it("gives the published interval for 81 of 263 (Newcombe 1998, table I)", () => {
    const { low, high } = wilson({ successes: 81, count: 263 });
    expect(low).toBeCloseTo(0.2553, 4);
    expect(high).toBeCloseTo(0.3662, 4);
  });

  it("knows nothing from nothing", () => {
    expect(wilson({ successes: 0, count: 0 })).toEqual({
      value: null,
      low: 0,
      high: 1,
      successes: 0,
      count: 0,
    });
  });

  it("holds the share within 0..1 at any counts", () => {
    fc.assert(
      fc.property(fc.nat(100_000), fc.nat(100_000), (a, b) => {
        const { value, low, high } = wilson({ successes: Math.min(a, b), count: Math.max(a, b, 1) });
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual(value!);
        expect(high).toBeGreaterThanOrEqual(value!);
      }),
    );
  });
});

describe("discordantPValue", () => {
  it.each([
    [0, 0, 1],
    [5, 0, 1 / 32],
    [8, 2, 56 / 1024],
    [0, 5, 1],
    [600, 400, 1.364e-10],
  ])("%i losses against %i wins: %f", (losses, wins, p) => {
    const value = discordantPValue(losses, wins);
    expect(Math.abs(value - p)).toBeLessThanOrEqual(p * 2e-3);
  });
});
