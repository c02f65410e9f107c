import { describe, expect, test } from "vitest";
import { bearingFaults, bearingSampling, createBearingSignal, developingFault } from "./bearing-signal.js";

const { windowLength, hop } = bearingSampling;
const rmsOf = (samples: Float32Array): number =>
  Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length);

describe("bearing signal", () => {
  test.each(bearingFaults)("windows of %s overlap sample by sample, far into the stream", (fault) => {
    const signal = createBearingSignal({ seed: 6, condition: { fault, severity: 0.7 } });
    const [a, b] = [signal.at(250_000), signal.at(250_001)];
    expect([...b.samples.subarray(0, windowLength - hop)]).toEqual([...a.samples.subarray(hop)]);
  });

  test("the same seed gives the same windows, another machine others", () => {
    const next = (seed: number) => createBearingSignal({ seed, firstIndex: 9 }).next();
    expect(next(3)).toEqual(next(3));
    expect(next(3).samples).not.toEqual(next(4).samples);
  });

  test.each(bearingFaults.filter((fault) => fault !== "none"))("%s grows louder with severity", (fault) => {
    const rms = (severity: number) => {
      const signal = createBearingSignal({ seed: 5, condition: { fault, severity } });
      return (
        Array.from({ length: 30 }, () => rmsOf(signal.next().samples)).reduce((sum, value) => sum + value) /
        30
      );
    };
    expect(rms(0)).toBeLessThan(rms(0.5));
    expect(rms(0.5)).toBeLessThan(rms(1));
  });

  test("truth: a fault counts from its severity on", () => {
    const signal = createBearingSignal({ seed: 5 });
    expect(signal.next().truth).toEqual({ fault: "none", severity: 0, faulty: false });
    signal.setCondition({ fault: "looseness", severity: 0.2 });
    expect(signal.next().truth.faulty).toBe(false);
    signal.setCondition({ fault: "looseness", severity: 0.4 });
    expect(signal.next().truth.faulty).toBe(true);
  });

  test("a developing fault rises from 0 to its severity", () => {
    const growth = { fault: "outer-race", startIndex: 100, windowCount: 50, severity: 0.8 } as const;
    const at = (index: number) => developingFault(index, growth).severity;
    expect([at(0), at(100), at(125), at(150), at(9999)]).toEqual([0, 0, 0.4, 0.8, 0.8]);
  });
});
