import { Random } from "@fieldloop/runtime/simulate";
import { describe, expect, it } from "vitest";
import {
  clipOutliers,
  contrastBounds,
  contrastEvidence,
  contrastOf,
  meanOfDevices,
  shareOfDevices,
} from "./device-contrast.js";

describe("arms", () => {
  it("have the mean of their devices, and Welch's degrees of freedom", () => {
    const { value, standardError, degrees } = contrastOf(
      meanOfDevices([1, 2, 3, 4, 5]),
      meanOfDevices([2, 4, 6, 8]),
    );
    // Variances 2.5 and 20/3, of the means 0.5 and 5/3.
    expect(value).toBeCloseTo(-2, 12);
    expect(standardError).toBeCloseTo(Math.sqrt(0.5 + 5 / 3), 12);
    expect(degrees).toBeCloseTo((0.5 + 5 / 3) ** 2 / (0.5 ** 2 / 4 + (5 / 3) ** 2 / 3), 10);
  });

  it("pull outliers in, and leave the rest", () => {
    const quiet = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    const [clipped] = clipOutliers([[...quiet, 1e6], quiet]);
    expect(clipped!.slice(0, 9)).toEqual(quiet);
    expect(clipped!.at(-1)).toBeLessThan(30);
    expect(
      clipOutliers([
        [1, 1, 1, 50],
        [1, 1, 1],
      ])[0],
    ).toEqual([1, 1, 1, 50]);
  });

  it("have the variance of devices, not of predictions", () => {
    const total = (sum: number, weight: number) => ({ during: { sum, weight }, before: null });
    const apart = shareOfDevices(Array.from({ length: 20 }, (_, at) => total(at % 2 === 0 ? 0 : 20, 100)));
    const together = shareOfDevices(Array.from({ length: 20 }, () => total(10, 100)));
    expect(apart.value).toBeCloseTo(0.1, 12);
    expect(apart.variance).toBeGreaterThan(8 * together.variance);
    // As many independent predictions would still have this.
    expect(together.variance).toBeCloseTo((0.1 * 0.9) / 2000, 6);
  });

  it("count the devices that carry the weight", () => {
    const total = (weight: number) => ({ during: { sum: 0, weight }, before: null });
    expect(shareOfDevices([total(10), total(10), total(10), total(10)]).units).toBeCloseTo(4, 9);
    expect(shareOfDevices([total(1000), total(10), total(10), total(10)]).units).toBeLessThan(1.1);
  });
});

describe("a contrast", () => {
  const contrast = { value: 0.1, standardError: 0.03, degrees: 12 };

  it("has bounds where its evidence reaches the bar", () => {
    const { low, high } = contrastBounds(contrast, 0.05, 0.01);
    expect(contrastEvidence(contrast, low, 0.05)).toBeCloseTo(Math.log(100), 6);
    expect(high - contrast.value).toBeCloseTo(contrast.value - low, 12);
    const known = contrastBounds({ ...contrast, degrees: 1e9 }, 0.05, 0.01);
    expect(known.low).toBeGreaterThan(low);
  });

  it("knows nothing without devices", () => {
    expect(contrastEvidence({ value: 1, standardError: 0, degrees: 1 }, 0, 0.05)).toBe(0);
    expect(contrastBounds({ value: 1, standardError: 0, degrees: 1 }, 0.05, 0.01)).toEqual({
      low: Number.NEGATIVE_INFINITY,
      high: Number.POSITIVE_INFINITY,
    });
  });

  it("of few devices with heavy tails and equal arms is rarely taken for an effect, however often it is looked at", () => {
    const runs = 400;
    let crossed = 0;
    for (let run = 0; run < runs; run++) {
      const random = new Random(21, run);
      // A tenth of the devices drift fifty times as far as the others.
      const draw = (): number => random.normal() * (random.uniform() < 0.1 ? 5 : 0.1);
      const devices = Array.from({ length: 24 }, () => ({ drift: draw(), sum: 0 }));
      let hit = false;
      for (let day = 1; day <= 30; day++) {
        for (const device of devices) device.sum += device.drift + draw();
        const means = devices.map(({ sum }) => sum / day);
        const [canary, control] = clipOutliers([means.slice(0, 8), means.slice(8)]);
        const seen = contrastOf(meanOfDevices(canary!), meanOfDevices(control!));
        hit ||= contrastEvidence(seen, 0, 0.2) >= Math.log(20);
      }
      crossed += Number(hit);
    }
    expect(crossed / runs).toBeLessThanOrEqual(0.05);
  });
});
