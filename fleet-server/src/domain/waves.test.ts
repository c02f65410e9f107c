import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planWaves } from "./waves.js";

const devices = (count: number): string[] => Array.from({ length: count }, (_, at) => `cam-${at}`);

describe("planWaves", () => {
  it("reads percents as cumulative and counts as they are", () => {
    const waves = planWaves("r1", devices(10), [{ count: 1 }, { percent: 30 }, { percent: 100 }]);
    expect(waves.map((wave) => wave.length)).toEqual([1, 2, 7]);
  });

  it("puts named devices where they are named and nowhere before", () => {
    for (let seed = 0; seed < 20; seed++) {
      const waves = planWaves(`r${seed}`, devices(5), [
        { count: 2 },
        { devices: ["cam-3"] },
        { percent: 100 },
      ]);
      expect(waves[1]).toEqual(["cam-3"]);
      expect(waves.flat().toSorted()).toEqual(devices(5));
    }
  });

  it("does not make the same device the canary of every rollout", () => {
    const canaries = new Set(
      Array.from(
        { length: 30 },
        (_, seed) => planWaves(`r${seed}`, devices(5), [{ count: 1 }, { percent: 100 }])[0]![0],
      ),
    );
    expect(canaries.size).toBeGreaterThan(2);
  });

  it.each([
    ["a device outside the target", [{ devices: ["other"] }, { percent: 100 }]],
    ["a last wave that leaves devices out", [{ count: 1 }, { percent: 50 }]],
  ])("refuses %s", (_, waves) => {
    expect(() => planWaves("r", devices(4), waves)).toThrowError(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });

  it("holds every target exactly once", () => {
    const wave = fc.oneof(
      fc.record({ count: fc.integer({ min: 1, max: 20 }) }),
      fc.record({ percent: fc.integer({ min: 1, max: 100 }) }),
      fc.record({ devices: fc.subarray(devices(8), { minLength: 1 }) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 60 }), fc.array(wave, { maxLength: 5 }), (count, some) => {
        const waves = planWaves("r", devices(count), [...some, { percent: 100 }]);
        expect(waves.flat().toSorted()).toEqual(devices(count).toSorted());
        expect(waves.every((members) => members.length > 0)).toBe(true);
      }),
    );
  });
});
