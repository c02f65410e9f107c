import { Random } from "@fieldloop/runtime/simulate";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { logEvidenceAbove, proportionBounds } from "./binomial-mixture.js";
import { logNormalMixture, normalMixtureBar } from "./normal-mixture.js";
import { dropBounds, dropEvidence, designEffect, pairedEvidence } from "./paired.js";
import { bestFirstShare, difference, differenceBounds, differenceEvidence } from "./proportions.js";
import { markedEvidence } from "./random-labels.js";
import { overdispersion, rateEvidence, rateRatioBounds } from "./rates.js";
import { findSilence } from "./silence.js";
import { logGamma } from "./special.js";

/** The promise of an e-value: where its hypothesis holds, its mean is at most 1. Here exactly, over all that can happen. */
describe("the mean of an e-value under its hypothesis", () => {
  const logBinomial = (n: number, k: number): number =>
    logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1);

  it.each([
    [50, 0.1],
    [200, 0.5],
    [1000, 0.01],
  ])("of a proportion, %i trials at the limit %f", (count, limit) => {
    const mean = (truth: number): number => {
      let sum = 0;
      for (let k = 0; k <= count; k++) {
        const logP = logBinomial(count, k) + k * Math.log(truth) + (count - k) * Math.log1p(-truth);
        sum += Math.exp(logP + logEvidenceAbove(k, count - k, limit));
      }
      return sum;
    };
    expect(mean(limit)).toBeCloseTo(1, 8);
    expect(mean(0.7 * limit)).toBeLessThan(1);
  });

  it.each([
    [5, 15],
    [50, 200],
    [200, 50],
  ])("of random labels, %i canaries and %i of control, any number marked", (canaries, controls) => {
    for (const marked of [1, 2, 7, 20]) {
      let sum = 0;
      for (let a = 0; a <= Math.min(marked, canaries); a++) {
        if (marked - a > controls) continue;
        const logP =
          logBinomial(canaries, a) +
          logBinomial(controls, marked - a) -
          logBinomial(canaries + controls, marked);
        const canary = { marked: a, devices: canaries };
        const control = { marked: marked - a, devices: controls };
        sum += Math.exp(logP + markedEvidence({ canary, control }));
      }
      expect(sum).toBeLessThanOrEqual(1 + 1e-9);
    }
  });

  it.each([
    [1, 4, 3],
    [0.2, 0.1, 1],
  ])("of two rates with exposures %f and %f at the ratio %f", (first, second, ratio) => {
    const perUnit = 5;
    const poisson = (k: number, mean: number): number => k * Math.log(mean) - mean - logGamma(k + 1);
    let sum = 0;
    for (let a = 0; a < 150; a++) {
      for (let b = 0; b < 150; b++) {
        const logP = poisson(a, ratio * perUnit * first) + poisson(b, perUnit * second);
        const evidence = rateEvidence({ count: a, exposure: first }, { count: b, exposure: second }, ratio);
        sum += Math.exp(logP + evidence);
      }
    }
    expect(sum).toBeCloseTo(1, 6);
  });

  it.each([0.1, 1, 30, 1000])("of a normal estimate, spread %f", (spread) => {
    let sum = 0;
    const step = 0.01;
    const end = 12 * Math.sqrt(1 + spread);
    for (let z = -end; z <= end; z += step) {
      sum += step * Math.exp(logNormalMixture(z, spread) - 0.5 * z * z) * Math.sqrt(0.5 / Math.PI);
    }
    expect(sum).toBeCloseTo(1, 6);
  });
});

describe("an e-process under its hypothesis", () => {
  it("reaches 1 / alpha at any of 200 looks in at most alpha of the runs", () => {
    const random = new Random(11);
    const runs = 600;
    let crossed = 0;
    for (let run = 0; run < runs; run++) {
      let successes = 0;
      for (let count = 1; count <= 200; count++) {
        if (random.uniform() < 0.2) successes++;
        if (logEvidenceAbove(successes, count - successes, 0.2) < Math.log(20)) continue;
        crossed++;
        break;
      }
    }
    expect(crossed / runs).toBeLessThanOrEqual(0.05);
    expect(crossed / runs).toBeGreaterThan(0.005);
  });

  it("of silence holds for devices that come and go, each at a rhythm of its own", () => {
    const runs = 400;
    let crossed = 0;
    for (let run = 0; run < runs; run++) {
      const random = new Random(12, run);
      const devices = Array.from({ length: 120 }, () => {
        const hours = 0.3 * Math.exp(2 * random.normal());
        return { hours, next: random.uniform() * 8 * hours, lastHeard: 0, isUp: true };
      });
      let hit = false;
      for (let hour = 1; hour <= 40; hour++) {
        for (const device of devices) {
          while (device.next < hour) {
            if (device.isUp) device.lastHeard = device.next;
            device.isUp = !device.isUp;
            device.next += device.hours * (device.isUp ? 8 : 1) * -Math.log(1 - random.uniform());
          }
          if (device.isUp) device.lastHeard = hour;
        }
        const silent = devices.map(({ lastHeard }) => hour - lastHeard);
        hit ||= findSilence(silent.slice(0, 40), silent.slice(40), hour, 1).logE >= Math.log(20);
      }
      crossed += Number(hit);
    }
    expect(crossed / runs).toBeLessThanOrEqual(0.05);
  });
});

const counts = fc.nat(1e7);
const alphas = fc.double({ min: 1e-6, max: 0.2, noNaN: true });

describe("every function", () => {
  it("is a number for all counts from none to ten million", () => {
    fc.assert(
      fc.property(counts, counts, counts, counts, alphas, (a, b, c, d, alpha) => {
        const first = { successes: Math.min(a, b), count: Math.max(a, b) };
        const second = { successes: Math.min(c, d), count: Math.max(c, d) };
        const numbers = [
          logEvidenceAbove(a, b, alpha),
          ...Object.values(proportionBounds(first.successes, first.count, alpha)),
          differenceEvidence(first, second, alpha, 0.05),
          ...Object.values(differenceBounds(first, second, 0.05, alpha)),
          rateEvidence({ count: a, exposure: b }, { count: c, exposure: d }, 2),
          pairedEvidence({ onlyFirstRight: a, onlySecondRight: b, neither: c }),
        ];
        for (const number of numbers) expect(number).not.toBeNaN();
        const { low, high } = rateRatioBounds({ count: a, exposure: b }, { count: c, exposure: d }, alpha);
        expect(low).toBeLessThanOrEqual(high);
      }),
      {
        numRuns: 60,
        examples: [
          [0, 0, 0, 0, 0.05],
          [0, 1, 0, 0, 0.05],
          [1, 0, 1, 1, 0.05],
          [1, 1, 0, 1, 0.05],
        ],
      },
    );
  });

  it("says nothing where nothing was counted", () => {
    expect(proportionBounds(0, 0, 0.05)).toEqual({ low: 0, high: 1 });
    expect(logEvidenceAbove(0, 0, 0.1)).toBeCloseTo(0, 12);
    expect(rateEvidence({ count: 0, exposure: 0 }, { count: 0, exposure: 0 }, 2)).toBe(0);
    expect(differenceEvidence({ successes: 0, count: 0 }, { successes: 0, count: 0 }, 0, 0.05)).toBe(0);
    expect(overdispersion([])).toBe(1);
    expect(designEffect([])).toBe(1);
    const nothing = dropBounds(
      { compared: 0, disagreements: 0 },
      { onlyFirstRight: 0, onlySecondRight: 0, neither: 0 },
      0.05,
    );
    expect(nothing).toEqual({ value: null, low: -1, high: 1 });
  });

  it("takes one failure for certainty where none is possible", () => {
    expect(logEvidenceAbove(1, 99, 0)).toBe(Number.POSITIVE_INFINITY);
    expect(logEvidenceAbove(0, 100, 0)).toBeLessThanOrEqual(0);
    expect(logEvidenceAbove(5, 0, 1)).toBe(0);
  });

  it("grows with the harm that it is evidence of, and shrinks with the limit", () => {
    fc.assert(
      fc.property(
        fc.nat(500),
        fc.nat(500),
        fc.double({ min: 0.01, max: 0.8, noNaN: true }),
        (bad, good, limit) => {
          const evidence = logEvidenceAbove(bad, good, limit);
          expect(logEvidenceAbove(bad + 1, good, limit)).toBeGreaterThan(evidence);
          expect(logEvidenceAbove(bad, good + 1, limit)).toBeLessThan(evidence);
          if (bad > limit * (bad + good)) {
            expect(logEvidenceAbove(bad, good, limit + 0.01)).toBeLessThanOrEqual(evidence + 1e-9);
          }
        },
      ),
    );
  });

  it("brackets what it estimates, tighter with more counts and a larger error", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 400 }), (bad, good) => {
        const count = bad + good;
        const { low, high } = proportionBounds(bad, count, 0.01);
        expect(low).toBeLessThan(bad / count);
        expect(high).toBeGreaterThan(bad / count);
        const wider = proportionBounds(bad, count, 0.001);
        expect(wider.low).toBeLessThan(low);
        expect(wider.high).toBeGreaterThan(high);
        const more = proportionBounds(10 * bad, 10 * count, 0.01);
        expect(more.high - more.low).toBeLessThan(high - low);
        const ratio = rateRatioBounds({ count: bad, exposure: 1 }, { count: good, exposure: 1 }, 0.01);
        expect(ratio.low).toBeLessThan(bad / good);
        expect(ratio.high).toBeGreaterThan(bad / good);
      }),
      { numRuns: 50 },
    );
  });

  it("has bounds where the evidence reaches its bar", () => {
    const [first, second] = [
      { successes: 30, count: 400 },
      { successes: 12, count: 500 },
    ];
    const { low, high } = differenceBounds(first, second, 0.05, 0.01);
    expect(difference(first, second)).toBeCloseTo(0.051, 3);
    expect(differenceEvidence(first, second, low, 0.05)).toBeCloseTo(Math.log(100), 6);
    expect(differenceEvidence(second, first, -high, 0.05)).toBeCloseTo(Math.log(100), 6);
    const rates = [
      { count: 7, exposure: 41 },
      { count: 1, exposure: 380 },
    ] as const;
    const ratio = rateRatioBounds(...rates, 0.01);
    expect(rateEvidence(...rates, ratio.low)).toBeCloseTo(Math.log(100), 6);
    expect(logNormalMixture(normalMixtureBar(0.01, 12), 12)).toBeCloseTo(Math.log(100), 8);
  });
});

describe("two shares a fixed difference apart", () => {
  it("are the most likely ones", () => {
    const logLikelihood = (p: number, { successes, count }: { successes: number; count: number }): number =>
      (successes > 0 ? successes * Math.log(p) : 0) +
      (count > successes ? (count - successes) * Math.log1p(-p) : 0);
    const some = fc.integer({ min: 1, max: 2000 });
    fc.assert(
      fc.property(
        some,
        some,
        some,
        some,
        fc.double({ min: -0.6, max: 0.6, noNaN: true }),
        (a, b, c, d, limit) => {
          const first = { successes: Math.min(a, b) - 1, count: Math.max(a, b) };
          const second = { successes: Math.min(c, d) - 1, count: Math.max(c, d) };
          const best = bestFirstShare(first, second, limit);
          const at = (p: number): number => logLikelihood(p, first) + logLikelihood(p - limit, second);
          const [least, most] = [Math.max(0, limit), Math.min(1, 1 + limit)];
          for (let step = 1; step < 50; step++) {
            const p = least + ((most - least) * step) / 50;
            expect(at(p)).toBeLessThanOrEqual(
              at(Math.min(Math.max(best, least + 1e-12), most - 1e-12)) + 1e-4,
            );
          }
        },
      ),
    );
  });
});

describe("crashes", () => {
  it("of one device in a loop weigh as one device", () => {
    const device = (count: number) => ({ count, exposure: 1 });
    const alike = Array.from({ length: 50 }, (_, at) => device(at % 2));
    expect(overdispersion(alike)).toBe(1);
    const loop = [...alike.map(() => device(0)), device(50)];
    expect(overdispersion(loop)).toBeCloseTo(50, 6);
  });
});

describe("paired labels", () => {
  it("tell what only labels on disagreements can", () => {
    const frames = { compared: 4000, disagreements: 160 };
    const worse = { onlyFirstRight: 100, onlySecondRight: 40, neither: 20 };
    const { value, low, high } = dropBounds(frames, worse, 0.01);
    expect(value).toBeCloseTo(0.015, 6);
    expect(low).toBeGreaterThan(0);
    expect(high).toBeLessThan(0.04);
    expect(dropEvidence(frames, worse, 0, 0.01)).toBe(pairedEvidence(worse));
    expect(dropEvidence(frames, worse, 0.005, 0.01)).toBeLessThan(pairedEvidence(worse));
    expect(dropEvidence(frames, worse, 0.02, 0.01)).toBeLessThan(0);
  });

  it("without a label, accuracy differs by no more than the versions do", () => {
    const none = { onlyFirstRight: 0, onlySecondRight: 0, neither: 0 };
    const { low, high } = dropBounds({ compared: 10_000, disagreements: 20 }, none, 0.01);
    expect(high).toBeLessThan(0.006);
    expect(low).toBeGreaterThan(-0.006);
  });

  it("of alike frames on few devices weigh less", () => {
    const apart = Array.from({ length: 20 }, (_, at) => ({ successes: at % 2 === 0 ? 10 : 0, count: 10 }));
    const together = Array.from({ length: 20 }, () => ({ successes: 5, count: 10 }));
    expect(designEffect(apart)).toBeGreaterThan(9);
    expect(designEffect(together)).toBe(1);
  });
});
