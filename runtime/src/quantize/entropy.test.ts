import { expect, test } from "vitest";
import { candidates, clippedDivergence, entropyThreshold } from "./entropy.js";
import { AdaptiveHistogram, BIN_COUNT } from "./histogram.js";
import { QUANTIZE_LIMITS } from "./limits.js";
import { rangeObserver } from "./observer.js";

/** The definition written out: both distributions as lists, and a sum over them. */
function divergenceByDefinition(counts: readonly number[], kept: number, levels: number): number {
  const p = counts.slice(0, kept);
  p[kept - 1]! += counts.slice(kept).reduce((sum, count) => sum + count, 0);
  const q = new Array<number>(kept).fill(0);
  for (let level = 0; level < levels; level++) {
    const places = p
      .map((_, at) => at)
      .filter(
        (at) => at >= Math.floor((level * kept) / levels) && at < Math.floor(((level + 1) * kept) / levels),
      );
    const used = places.filter((at) => counts[at]! > 0);
    const sum = places.reduce((total, at) => total + counts[at]!, 0);
    for (const at of used) q[at] = sum / used.length;
  }
  const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0);
  const [sumP, sumQ] = [sumOf(p), sumOf(q)];
  return p.reduce((total, count, at) => {
    if (count === 0) return total;
    return total + (count / sumP) * Math.log(count / sumP / (q[at]! > 0 ? q[at]! / sumQ : Number.EPSILON));
  }, 0);
}

function randomCounts(seed: number, length: number): number[] {
  let state = seed;
  return Array.from({ length }, (_, at) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % 5 === 0 ? 0 : Math.floor((state / 2 ** 32) * 1000 * Math.exp(-at / (length / 6)));
  });
}

test("the divergence is that of the definition, on small histograms", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const counts = randomCounts(seed, 24);
    counts[0] = 5;
    for (const [kept, levels] of [
      [8, 4],
      [13, 4],
      [24, 8],
      [24, 24],
    ] as const) {
      const found = clippedDivergence(Float64Array.from(counts), kept, levels);
      expect(found).toBeCloseTo(divergenceByDefinition(counts, kept, levels), 9);
    }
  }
});

test("the threshold is the candidate of least divergence", () => {
  for (let seed = 1; seed <= 6; seed++) {
    const counts = randomCounts(seed, 400);
    counts[399] = 3;
    const byDefinition = candidates(400).map((kept) => divergenceByDefinition(counts, kept, 128));
    const least = Math.min(...byDefinition);
    const chosen = candidates(400)[byDefinition.findLastIndex((value) => value - least < 1e-12)];
    expect(entropyThreshold(Float64Array.from(counts))).toBe(chosen);
  }
});

test("few bins are all kept, and outliers are clipped", () => {
  expect(entropyThreshold(Float64Array.from({ length: 100 }, () => 1))).toBe(100);
  const observer = rangeObserver("t", { kind: "entropy" });
  let state = 7;
  const normal = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const first = (state + 1) / (2 ** 32 + 1);
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.sqrt(-2 * Math.log(first)) * Math.cos((2 * Math.PI * state) / 2 ** 32);
  };
  const values = Float32Array.from({ length: 200_000 }, normal);
  values[17] = 60;
  observer.observe(values);
  const { min, max } = observer.range();
  expect(max).toBeGreaterThan(2.5);
  expect(max).toBeLessThan(12);
  expect(min).toBeLessThan(-2.5);
});

test("values that lie together far from zero are not clipped away", () => {
  const observer = rangeObserver("t", { kind: "entropy" });
  observer.observe(Float32Array.from({ length: 20_000 }, (_, at) => -3 + 0.4 * Math.sin(at)));
  expect(observer.range().min).toBeLessThan(-3.35);
  const ends = rangeObserver("t", { kind: "entropy" });
  ends.observe(Float32Array.from({ length: 20_000 }, (_, at) => [0.5, 1, 0.5 + (at % 97) / 194][at % 3]!));
  expect(ends.range()).toEqual({ min: 0.5, max: 1 });
});

test("a histogram holds its bytes and no more, whatever it sees, and merges without losing a value", () => {
  const histogram = new AdaptiveHistogram();
  expect(histogram.bins.byteLength).toBe(QUANTIZE_LIMITS.histogramBytesPerTensor);
  const { bins } = histogram;
  for (let power = -20; power <= 20; power++) {
    const values = Float32Array.from({ length: 1000 }, (_, at) => 2 ** power * (at / 500 - 1));
    histogram.add(values, -(2 ** power), 2 ** power * (999 / 500 - 1));
  }
  expect(histogram.bins).toBe(bins);
  expect(histogram.bins.length).toBe(BIN_COUNT);
  expect(histogram.bins.reduce((sum, count) => sum + count, 0)).toBe(41_000);
  const negative = histogram.bins.subarray(0, BIN_COUNT / 2).reduce((sum, count) => sum + count, 0);
  expect(negative).toBe(41 * 500);
  expect(histogram.magnitudes().reduce((sum, count) => sum + count, 0)).toBe(41_000);
});
