import { describe, expect, it } from "vitest";
import {
  adamW,
  clipGradient,
  gradientNorm,
  guardFinite,
  rateAt,
  sgdMomentum,
  updateAverage,
} from "./optimizer.js";

const whole = (size: number, rateScale = 1, decay = 0) => [{ offset: 0, size, rateScale, decay }];

describe("adamW", () => {
  it("follows the published update in double precision", () => {
    const optimizer = adamW(whole(2, 1, 0.1), 2);
    const theta = Float32Array.of(1, -2);
    const expected = [1, -2];
    const moments = [
      [0, 0],
      [0, 0],
    ];
    for (let step = 0; step < 5; step++) {
      const gradient = Float32Array.of(0.5 - step * 0.3, 0.01 * (step + 1));
      optimizer.update(theta, gradient, 0.01, step);
      for (let i = 0; i < 2; i++) {
        const [m, v] = moments[i]!;
        moments[i] = [0.9 * m! + 0.1 * gradient[i]!, 0.999 * v! + 0.001 * gradient[i]! ** 2];
        const first = moments[i]![0]! / (1 - 0.9 ** (step + 1));
        const second = moments[i]![1]! / (1 - 0.999 ** (step + 1));
        expected[i] = expected[i]! - 0.01 * (first / (Math.sqrt(second) + 1e-8) + 0.1 * expected[i]!);
      }
    }
    for (let i = 0; i < 2; i++) expect(theta[i]).toBeCloseTo(expected[i]!, 6);
  });

  it("moves each segment by its own rate and leaves the rest alone", () => {
    const optimizer = adamW([{ offset: 1, size: 1, rateScale: 10, decay: 0 }], 3);
    const theta = Float32Array.of(1, 1, 1);
    optimizer.update(theta, Float32Array.of(1, 1, 1), 0.01, 0);
    expect(Array.from(theta)).toEqual([1, Math.fround(0.9), 1]);
  });
});

describe("sgdMomentum", () => {
  it("accumulates velocity", () => {
    const optimizer = sgdMomentum(whole(1), 1, 0.5);
    const theta = Float32Array.of(0);
    optimizer.update(theta, Float32Array.of(1), 0.1, 0);
    optimizer.update(theta, Float32Array.of(1), 0.1, 1);
    expect(theta[0]).toBeCloseTo(-0.1 - 0.15, 6);
  });

  it("finds the minimum of a quadratic, as adamW does", () => {
    for (const optimizer of [sgdMomentum(whole(2), 2, 0.9), adamW(whole(2), 2)]) {
      const theta = Float32Array.of(3, -4);
      for (let step = 0; step < 600; step++) {
        const rate = rateAt(step, { rate: 0.05, steps: 600, warmupSteps: 0, schedule: "cosine" });
        optimizer.update(theta, Float32Array.of(theta[0]! - 1, 2 * (theta[1]! - 2)), rate, step);
      }
      expect(Math.abs(theta[0]! - 1)).toBeLessThan(0.05);
      expect(Math.abs(theta[1]! - 2)).toBeLessThan(0.05);
    }
  });
});

describe("rateAt", () => {
  it("rises over the warm-up, then falls by half a cosine to nearly nothing", () => {
    const schedule = { rate: 1, steps: 110, warmupSteps: 10, schedule: "cosine" } as const;
    expect(rateAt(0, schedule)).toBeCloseTo(0.1);
    expect(rateAt(9, schedule)).toBeCloseTo(1);
    expect(rateAt(60, schedule)).toBeCloseTo(0.5);
    expect(rateAt(109, schedule)).toBeLessThan(0.001);
    expect(rateAt(109, { ...schedule, schedule: "constant" })).toBe(1);
  });
});

describe("gradient guards", () => {
  it("clips to the limit and not below it", () => {
    const gradient = Float32Array.of(3, 4);
    expect(gradientNorm(gradient)).toBe(5);
    clipGradient(gradient, 5, 10);
    expect(Array.from(gradient)).toEqual([3, 4]);
    clipGradient(gradient, 5, 1);
    expect(gradientNorm(gradient)).toBeCloseTo(1, 6);
  });

  it("refuses what is not finite", () => {
    expect(() => guardFinite(1, 1, 3)).not.toThrow();
    expect(() => guardFinite(NaN, 1, 3)).toThrow(expect.objectContaining({ code: "training_diverged" }));
    expect(() => guardFinite(1, Infinity, 3)).toThrow(expect.objectContaining({ code: "training_diverged" }));
  });

  it("averages parameters", () => {
    const average = Float32Array.of(0);
    updateAverage(average, Float32Array.of(1), 0.9);
    expect(average[0]).toBeCloseTo(0.1, 6);
  });
});
