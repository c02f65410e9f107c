import fc from "fast-check";
import { expect, test } from "vitest";
import { affineParameters, quantizedRange, quantizeValue, roundHalfEven } from "./numeric.js";
import { rangeObserver } from "./observer.js";
import { quantizeBias, quantizeWeight } from "./weights.js";

test("halves go to the even neighbour", () => {
  const halves = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5];
  expect(halves.map((value) => roundHalfEven(value) + 0)).toEqual([-2, -2, 0, 0, 2, 2, 4]);
  expect(roundHalfEven(2.4999)).toBe(2);
});

test("zero is exact and no value inside the range moves by more than half a step", () => {
  const real = fc.double({ min: -1e4, max: 1e4, noNaN: true });
  fc.assert(
    fc.property(
      real,
      real,
      fc.boolean(),
      fc.boolean(),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (a, b, isUint8, symmetric, at) => {
        const type = isUint8 ? "uint8" : "int8";
        const [low, high] = [Math.min(a, b, 0), Math.max(a, b, 0)];
        const parameters = affineParameters(low, high, type, symmetric);
        const range = quantizedRange(type);
        const back = (value: number) =>
          (quantizeValue(value, parameters, range) - parameters.zeroPoint) * parameters.scale;
        expect(back(0)).toBe(0);
        const value = low + at * (high - low);
        // The zero point is rounded, so the ends of the range may be cut by half a step more.
        const steps = symmetric ? 0.51 : 1.01;
        expect(Math.abs(back(value) - value)).toBeLessThanOrEqual(steps * parameters.scale);
      },
    ),
  );
});

test("the lowest level stands for 0 when nothing is negative, so Relu is absorbed", () => {
  expect(affineParameters(0.3, 5.1, "uint8", false).zeroPoint).toBe(0);
  expect(affineParameters(0.3, 5.1, "int8", false).zeroPoint).toBe(-128);
  expect(affineParameters(0, 0, "uint8", false)).toEqual({ scale: 1, zeroPoint: 0 });
});

test("weights use one scale per channel, whichever axis it lies on", () => {
  const data = Float32Array.from([1, -20, 0.5, 10]);
  const request = { name: "w", data, dims: [2, 2], reduceRange: false };
  const columns = quantizeWeight({ ...request, axis: 1 });
  expect([...columns.values]).toEqual([127, -127, 64, 64]);
  expect(columns.scales[1]).toBeCloseTo(20 / 127, 6);
  expect([...quantizeWeight({ ...request, axis: 0 }).values]).toEqual([6, -127, 6, 127]);
  expect([...quantizeWeight({ ...request, axis: 1, reduceRange: true }).values]).toEqual([64, -64, 32, 32]);
  data[2] = Number.NaN;
  expect(() => quantizeWeight({ ...request, axis: 0 })).toThrow(/weight "w": value 2 is NaN/);
});

test("a tiny weight with a large bias gets a scale that holds the bias", () => {
  const bias = Float32Array.from([50, 0.25]);
  const weight = quantizeWeight({
    name: "w",
    data: Float32Array.from([1e-12, 0]),
    dims: [2, 1],
    axis: 0,
    reduceRange: false,
    bias,
    inputScale: 1e-3,
  });
  const quantized = quantizeBias(bias, 1e-3, weight.scales);
  for (const [index, value] of quantized.values.entries()) {
    expect(Math.abs(value)).toBeLessThanOrEqual(2 ** 30);
    expect(value * quantized.scales[index]!).toBeCloseTo(bias[index]!, 4);
  }
});

test("kept scales give unchanged weights unchanged levels", () => {
  const data = Float32Array.from([0.9, -0.5, 0.99, 0.1]);
  const request = { name: "w", data, dims: [2, 2], axis: 0, reduceRange: false };
  const base = [1 / 127, 1 / 127];
  expect([...quantizeWeight({ ...request, baseScales: base }).scales]).toEqual(base.map(Math.fround));
  // Too far off to describe these weights well: chosen anew.
  const fresh = [...quantizeWeight(request).scales];
  expect([...quantizeWeight({ ...request, baseScales: [1, 1e-6] }).scales]).toEqual(fresh);
});

test("the histogram cuts the tails that the percentile names, in whatever batches they come", () => {
  const values = Float32Array.from({ length: 100_000 }, (_, index) => (index - 50_000) / 50_000);
  values[0] = 400;
  values[1] = -900;
  const whole = rangeObserver("t", { kind: "percentile", percentile: 99.9 });
  whole.observe(values);
  const parts = rangeObserver("t", { kind: "percentile", percentile: 99.9 });
  for (let start = values.length - 1000; start >= 0; start -= 1000) {
    parts.observe(values.subarray(start, start + 1000));
  }
  for (const observer of [whole, parts]) {
    expect(observer.range().min).toBeCloseTo(-1, 0);
    expect(observer.range().max).toBeCloseTo(1, 0);
  }
  const minmax = rangeObserver("t", { kind: "minmax" });
  minmax.observe(values);
  expect(minmax.range()).toEqual({ min: -900, max: 400 });
  expect(() => minmax.observe(Float32Array.from([1, Number.NaN]))).toThrow(/tensor "t" took the value NaN/);
});
