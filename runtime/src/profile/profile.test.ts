import { encodeCbor, mergeStatistics, profileStatisticsSchema } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ProfileAccumulator, type ProfiledPrediction } from "./accumulator.js";
import { decodeBaseline, encodeBaseline, type Baseline } from "./baseline.js";
import { fitNovelty, noveltyOf, unitVector } from "./novelty.js";

const prediction: fc.Arbitrary<ProfiledPrediction> = fc.record({
  class: fc.integer({ min: -1, max: 5 }),
  confidence: fc.double({ min: 0, max: 1, noNaN: true }),
  latencyMs: fc.double({ min: 0, max: 100, noNaN: true }),
  signals: fc.record({ margin: fc.double({ min: 0, max: 1, noNaN: true }) }, { requiredKeys: [] }),
});

function counted(predictions: readonly ProfiledPrediction[]) {
  const accumulator = new ProfileAccumulator();
  for (const one of predictions) accumulator.add(one);
  return accumulator.take();
}

describe("profile", () => {
  it("of two windows merged is that of both together, and fits the wire", () => {
    fc.assert(
      fc.property(fc.array(prediction), fc.array(prediction), (a, b) => {
        const merged = mergeStatistics(counted(a), counted(b));
        const together = counted([...a, ...b]);
        expect({ ...merged, confidenceSum: 0, confidenceSquareSum: 0 }).toEqual({
          ...together,
          confidenceSum: 0,
          confidenceSquareSum: 0,
        });
        expect(merged.confidenceSum).toBeCloseTo(together.confidenceSum, 9);
        expect(profileStatisticsSchema.safeParse(together).success).toBe(true);
        expect(together.classes.reduce((sum, count) => sum + count, 0)).toBe(a.length + b.length);
      }),
    );
  });
  it("starts anew after it was taken, and a snapshot does not move", () => {
    const accumulator = new ProfileAccumulator();
    const one = { class: 2, confidence: 0.9, latencyMs: 1, signals: { margin: 0.8, energy: Number.NaN } };
    accumulator.add(one);
    const snapshot = accumulator.snapshot();
    accumulator.add(one);
    expect(snapshot.count).toBe(1);
    expect(snapshot.classes).toEqual([0, 0, 0, 1]);
    expect(Object.keys(snapshot.signals)).toEqual(["margin"]);
    expect(accumulator.take().count).toBe(2);
    expect(accumulator.count).toBe(0);
  });
});

describe("novelty", () => {
  // Two bundles of directions around the axes of a plane.
  const bundle = (angle: number, count: number): Float32Array[] =>
    Array.from({ length: count }, (_, at) => {
      const turn = angle + ((at % 7) - 3) * 0.02;
      return Float32Array.from([3 * Math.cos(turn), 3 * Math.sin(turn)]);
    });
  const training = [...bundle(0, 40), ...bundle(Math.PI / 2, 40)];
  const fit = () => {
    let state = 1;
    const random = (): number => (state = (state * 16807) % 2147483647) / 2147483647;
    return fitNovelty({
      training,
      validation: [...bundle(0, 7), ...bundle(Math.PI / 2, 7)],
      centroidCount: 2,
      random,
    });
  };

  it("is about 1 for validation data, large for another direction, and blind to length", () => {
    const reference = fit();
    const usual = noveltyOf(Float32Array.from([Math.cos(0.04), Math.sin(0.04)]), reference);
    const strange = noveltyOf(Float32Array.from([1, 1]), reference);
    expect(usual).toBeLessThan(2);
    expect(strange).toBeGreaterThan(15);
    expect(noveltyOf(Float32Array.from([100, 100]), reference)).toBeCloseTo(strange, 4);
  });
  it("is fitted to the same bytes from the same numbers", () => {
    expect(fit()).toEqual(fit());
  });
  it("refuses embeddings of another length, or none", () => {
    expect(() => noveltyOf(Float32Array.from([1]), fit())).toThrow(/1 values, the baseline has 2/);
    expect(() => fitNovelty({ training: [], validation: [], centroidCount: 1, random: () => 0 })).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
  it("normalizes to unit length, and zeros to zeros", () => {
    expect([...unitVector([3, 4])]).toEqual([expect.closeTo(0.6, 6), expect.closeTo(0.8, 6)]);
    expect([...unitVector([0, 0])]).toEqual([0, 0]);
  });
});

describe("baseline file", () => {
  const baseline: Baseline = {
    statistics: counted([{ class: 0, confidence: 0.9, latencyMs: 2, signals: { margin: 0.8 } }]),
    novelty: { centroids: Float32Array.from([1, 0]), count: 1, length: 2, median: 0.5 },
    inputRange: { min: -1, max: 1 },
  };
  it("survives encoding", () => expect(decodeBaseline(encodeBaseline(baseline))).toEqual(baseline));
  it("reads the same from the middle of a pooled buffer", () => {
    const bytes = encodeBaseline(baseline);
    const pool = Buffer.alloc(bytes.length + 24, 0x5a);
    pool.set(bytes, 13);
    expect(decodeBaseline(pool.subarray(13, 13 + bytes.length))).toEqual(baseline);
  });
  it.each([
    ["text", encodeCbor("baseline"), "manifest_invalid"],
    ["no statistics", encodeCbor({ novelty: null }), "manifest_invalid"],
    ["a cut file", encodeBaseline(baseline).subarray(0, 40), "cbor_truncated"],
    ["nothing", new Uint8Array(0), "cbor_truncated"],
    [
      "centroids of another count",
      encodeCbor({
        statistics: baseline.statistics,
        novelty: { centroids: Float32Array.from([1]), count: 1, length: 2, median: 1 },
      } as never),
      "manifest_invalid",
    ],
  ])("refuses %s", (_, bytes, code) => {
    expect(() => decodeBaseline(bytes)).toThrow(expect.objectContaining({ code }));
  });
});
