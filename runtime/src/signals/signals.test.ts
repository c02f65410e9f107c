import { emptyStatistics, type SignalName } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Tensor } from "../backend.js";
import { readClassification, type ClassificationHead } from "../heads/classification.js";
import { ProfileAccumulator } from "../profile/accumulator.js";
import type { Baseline } from "../profile/baseline.js";
import { computeSignals } from "./compute.js";
import { INSTABILITY_WINDOW, SignalTracker } from "./tracker.js";
import { predictionWorth } from "./worth.js";

const head: ClassificationHead = {
  kind: "classification",
  name: "class",
  output: "y",
  labels: ["a", "b"],
  values: "logits",
  activation: "softmax",
  temperature: 1,
};
const tensor = (values: number[]): Tensor => ({
  type: "float32",
  dims: [1, values.length],
  data: Float32Array.from(values),
});

describe("signals, by hand", () => {
  const results = [
    readClassification(head, tensor([0, Math.log(3)])),
    { kind: "embedding" as const, name: "e", embedding: Float32Array.from([0, 5]) },
  ];
  const baseline: Baseline = {
    statistics: emptyStatistics(),
    novelty: { centroids: Float32Array.from([1, 0, 0.6, 0.8]), count: 2, length: 2, median: 0.25 },
    inputRange: { min: 0, max: 1 },
  };
  const input = tensor([0, 0.5, 1, 1.5]);

  it.each<[SignalName, number]>([
    ["margin", 0.5],
    ["entropy", 0.811278],
    ["energy", -Math.log(4)],
    // The normalized embedding [0, 1] is √(0.36 + 0.04) from the nearer centroid, 0.25 is 1.
    ["novelty", Math.sqrt(0.4) / 0.25],
    ["range", 0.25],
    ["brightness", 0.3],
    ["instability", 0.75],
  ])("%s is %d", (name, expected) => {
    const signals = computeSignals([name], { results, baseline, input, brightness: 0.3, instability: 0.75 });
    expect(signals[name]).toBeCloseTo(expected, 5);
  });
  it("leaves out what the model cannot give", () => {
    const all: SignalName[] = [
      "margin",
      "novelty",
      "range",
      "reconstruction",
      "disagreement",
      "rule",
      "brightness",
    ];
    expect(Object.keys(computeSignals(all, { results, input }))).toEqual(["margin"]);
  });
  it("gives them in the order that was asked for", () => {
    const signals = computeSignals(["energy", "margin", "entropy"], { results });
    expect(Object.keys(signals)).toEqual(["energy", "margin", "entropy"]);
  });
});

describe("instability", () => {
  it("is the share of the last classes that differ", () => {
    const tracker = new SignalTracker();
    expect([0, 0, 1, 0, 0].map((value) => tracker.update(value))).toEqual([0, 0, 1, 1 / 3, 1 / 4]);
    tracker.reset();
    expect(tracker.update(7)).toBe(0);
  });
  it("forgets what lies beyond its window", () => {
    const tracker = new SignalTracker();
    tracker.update(1);
    for (let at = 0; at < INSTABILITY_WINDOW; at++) tracker.update(0);
    expect(tracker.update(0)).toBe(0);
    expect(tracker.update(-1)).toBe(1);
  });
});

describe("worth", () => {
  const accumulator = new ProfileAccumulator();
  for (let at = 0; at < 500; at++) {
    accumulator.add({
      class: 0,
      confidence: 0.98,
      latencyMs: 1,
      signals: { margin: 1 - (at % 50) / 250, entropy: (at % 50) / 300, novelty: 0.5 + (at % 100) / 100 },
    });
  }
  const baseline: Baseline = { statistics: accumulator.take() };
  const unit = fc.double({ min: 0, max: 1, noNaN: true });

  it("lies in 0..1 and never falls as a signal gets worse, with and without a baseline", () => {
    const novelty = fc.double({ min: 0, max: 2000, noNaN: true });
    fc.assert(
      fc.property(unit, unit, novelty, novelty, unit, fc.boolean(), (m1, m2, n1, n2, entropy, known) => {
        const of = (margin: number, value: number): number =>
          predictionWorth({ margin, entropy, novelty: value }, 0.9, known ? baseline : undefined);
        const mild = of(Math.max(m1, m2), Math.min(n1, n2));
        const bad = of(Math.min(m1, m2), Math.max(n1, n2));
        expect(mild).toBeGreaterThanOrEqual(0);
        expect(bad).toBeLessThanOrEqual(1);
        expect(bad).toBeGreaterThanOrEqual(mild);
      }),
    );
  });
  it("puts what the baseline never showed above what it showed, and still orders beyond it", () => {
    const usual = predictionWorth({ margin: 0.95, entropy: 0.05, novelty: 0.9 }, 0.99, baseline);
    const doubtful = predictionWorth({ margin: 0.3, entropy: 0.6, novelty: 0.9 }, 0.6, baseline);
    const strange = predictionWorth({ margin: 0.3, entropy: 0.6, novelty: 4 }, 0.6, baseline);
    const stranger = predictionWorth({ margin: 0.05, entropy: 0.9, novelty: 9 }, 0.5, baseline);
    expect(usual).toBeLessThan(0.3);
    expect(doubtful).toBeGreaterThan(usual);
    expect(strange).toBeGreaterThan(doubtful);
    expect(stranger).toBeGreaterThan(strange);
  });
  it("falls back on the confidence, and ignores what is not a number", () => {
    expect(predictionWorth({}, 0.25)).toBeCloseTo(0.75, 9);
    expect(predictionWorth({ margin: Number.NaN }, 0.25)).toBeCloseTo(0.75, 9);
  });
  it("rises with a broken rule or a disagreement of a confident model", () => {
    const signals = { margin: 1, entropy: 0 };
    const calm = predictionWorth(signals, 1, baseline);
    expect(predictionWorth({ ...signals, rule: 1 }, 1, baseline)).toBeGreaterThan(0.75);
    expect(predictionWorth({ ...signals, disagreement: 0.5 }, 1, baseline)).toBeGreaterThan(calm + 0.3);
  });
});
