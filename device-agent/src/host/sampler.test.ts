import type { SamplingPolicy } from "@fieldloop/protocol";
import { Random } from "@fieldloop/runtime/simulate";
import { describe, expect, it } from "vitest";
import { type Decision, Sampler } from "./sampler.js";

const FPS = 20;

interface Run {
  readonly taken: { worth: number; decision: Decision; at: number }[];
  readonly worths: number[];
  readonly skipped: number;
}

/** Frames at 20 fps of which a share is worth much; every sample takes `bytes`. */
function run(options: {
  seed: number;
  seconds: number;
  policy: Partial<SamplingPolicy>;
  bytes?: number;
  badShare?: number;
}): Run {
  const random = new Random(options.seed, 1);
  const frames = new Random(options.seed, 2);
  const policy: SamplingPolicy = {
    bytesPerHour: 1e9,
    randomShare: 0.05,
    worthMin: 0,
    worthPerMinute: 30,
    ...options.policy,
  };
  const taken: Run["taken"] = [];
  const worths: number[] = [];
  let now = 0;
  const sampler = new Sampler<{ worth: number }>(
    policy,
    () => random.uniform(),
    now,
    (item, decision) => {
      taken.push({ worth: item.worth, decision, at: now });
      sampler.spent(decision.stratum, options.bytes ?? 1_000, now);
    },
  );
  for (let frame = 0; frame < options.seconds * FPS; frame++) {
    now += 1000 / FPS;
    const isBad = frames.uniform() < (options.badShare ?? 0.2);
    const worth = isBad ? frames.range(0.6, 1) : frames.range(0, 0.5);
    worths.push(worth);
    sampler.offer({ worth }, worth, now);
  }
  sampler.tick(now + 100_000);
  return { taken, worths, skipped: sampler.windowsSkipped };
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
/** Horvitz and Thompson 1952: the sum over those taken, each over its chance. */
const estimate = (taken: Run["taken"], value: (item: Run["taken"][number]) => number): number =>
  sum(taken.map((item) => value(item) / item.decision.probability));

describe("Sampler", () => {
  it("spends one budget, however often it is told the same", () => {
    const policy = { bytesPerHour: 60_000, randomShare: 1, worthMin: 1, worthPerMinute: 0 };
    let bytes = 0;
    const random = new Random(5);
    const sampler: Sampler<number> = new Sampler<number>(
      policy,
      () => random.uniform(),
      0,
      (_, { stratum }) => {
        bytes += 1_000;
        sampler.spent(stratum, 1_000, 0);
      },
    );
    for (let frame = 0; frame < 1_000; frame++) {
      sampler.setPolicy({ ...policy }, 0);
      sampler.offer(frame, 0, 0);
    }
    // A quarter of ten minutes' budget, and what the least share takes beyond it.
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(60_000);
  });

  it.each(["random", "worth"] as const)("gives unbiased estimates from the %s stratum", (stratum) => {
    const ratios: { bad: number; strength: number }[] = [];
    for (let seed = 1; seed <= 60; seed++) {
      const { taken, worths } = run({ seed, seconds: 600, policy: { worthPerMinute: 120 } });
      const own = taken.filter(({ decision }) => decision.stratum === stratum);
      const isBad = (worth: number): number => (worth >= 0.6 ? 1 : 0);
      const strength = (worth: number): number => worth ** 4;
      ratios.push({
        bad: estimate(own, ({ worth }) => isBad(worth)) / sum(worths.map(isBad)),
        strength: estimate(own, ({ worth }) => strength(worth)) / sum(worths.map(strength)),
      });
    }
    const mean = (pick: (ratio: (typeof ratios)[number]) => number): number =>
      sum(ratios.map(pick)) / ratios.length;
    expect(Math.abs(mean(({ bad }) => bad) - 1)).toBeLessThan(0.04);
    expect(Math.abs(mean(({ strength }) => strength) - 1)).toBeLessThan(0.04);
  });

  it("stays unbiased when the random budget runs low", () => {
    const ratios: number[] = [];
    for (let seed = 1; seed <= 60; seed++) {
      const policy = { bytesPerHour: 400_000, randomShare: 0.2, worthPerMinute: 0 };
      const { taken, worths } = run({ seed, seconds: 1_200, policy });
      expect(new Set(taken.map(({ decision }) => decision.probability)).size).toBeGreaterThan(1);
      ratios.push(estimate(taken, () => 1) / worths.length);
    }
    const mean = sum(ratios) / ratios.length;
    expect(mean).toBeGreaterThan(0.9);
    expect(mean).toBeLessThan(1.1);
  });

  it("takes the best of each window, at the rate that the policy says", () => {
    const { taken, worths } = run({ seed: 3, seconds: 600, policy: { randomShare: 0, worthPerMinute: 12 } });
    const worth = taken.filter(({ decision }) => decision.stratum === "worth");
    expect(worth.length).toBeGreaterThanOrEqual(118);
    expect(worth.length).toBeLessThanOrEqual(121);
    expect(worth.filter((item) => item.worth >= 0.6).length / worth.length).toBeGreaterThan(0.95);
    expect(worths.filter((value) => value >= 0.6).length / worths.length).toBeLessThan(0.25);
  });

  it("takes nothing for worth below the threshold, and nothing at all without a budget", () => {
    const { taken } = run({ seed: 4, seconds: 120, policy: { worthMin: 0.9 } });
    expect(
      taken.filter(({ decision }) => decision.stratum === "worth").every(({ worth }) => worth >= 0.9),
    ).toBe(true);
    expect(run({ seed: 4, seconds: 120, policy: { bytesPerHour: 0 } }).taken).toEqual([]);
  });

  it("spends the bytes of an hour, not more, and leaves the random stratum its part", () => {
    const bytesPerHour = 2_000_000;
    const { taken, skipped } = run({
      seed: 5,
      seconds: 3 * 3_600,
      bytes: 5_000,
      policy: { bytesPerHour, worthPerMinute: 600 },
    });
    const bytes = taken.length * 5_000;
    expect(bytes).toBeLessThan(bytesPerHour * 3.35);
    expect(bytes).toBeGreaterThan(bytesPerHour * 2.5);
    expect(taken.filter(({ decision }) => decision.stratum === "random").length * 5_000).toBeGreaterThan(
      bytesPerHour * 0.6,
    );
    expect(skipped).toBeGreaterThan(0);
  });

  it("takes what is sought before all that is only worth a look, each with the same chance, within the budget", () => {
    const seeds = 40;
    let sought = 0;
    let estimated = 0;
    const places = new Array<number>(10).fill(0);
    for (let seed = 1; seed <= seeds; seed++) {
      const random = new Random(seed, 1);
      const taken: { item: { at: number; isSought: boolean }; decision: Decision }[] = [];
      const policy = { bytesPerHour: 1e9, randomShare: 0, worthMin: 0.9, worthPerMinute: 60 };
      const sampler = new Sampler<{ at: number; isSought: boolean }>(
        policy,
        () => random.uniform(),
        0,
        (item, decision) => taken.push({ item, decision }),
      );
      // Ten of a hundred frames of each window of five seconds are sought, of the least worth; five are taken.
      for (let at = 0; at < 1_000; at++) {
        const isSought = at % 10 === 3;
        if (isSought) sought++;
        sampler.offer({ at, isSought }, isSought ? 0.1 * random.uniform() : 0.99, at * 50, isSought);
      }
      sampler.tick(1e9);
      expect(taken.length).toBe(50);
      for (const { item, decision } of taken) {
        expect(item.isSought).toBe(true);
        places[Math.floor((item.at % 100) / 10)]!++;
        estimated += 1 / decision.probability;
      }
    }
    expect(Math.min(...places)).toBeGreaterThan(0.75 * 5 * seeds);
    expect(estimated / sought).toBeGreaterThan(0.85);
    expect(estimated / sought).toBeLessThan(1.15);
    // Where nothing is to be taken for worth, nothing is.
    const none: Decision[] = [];
    const policy = { bytesPerHour: 1e9, randomShare: 0, worthMin: 0, worthPerMinute: 0 };
    const sampler = new Sampler<number>(
      policy,
      () => 0.5,
      0,
      (_, decision) => none.push(decision),
    );
    for (let at = 0; at < 100; at++) sampler.offer(at, 1, at * 50, true);
    sampler.tick(1e9);
    expect(none).toEqual([]);
  });

  it("takes what was asked for at once, whatever it is worth", () => {
    const random = new Random(1, 1);
    const taken: Decision[] = [];
    const policy = { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 };
    const sampler = new Sampler<number>(
      policy,
      () => random.uniform(),
      0,
      (_, decision) => taken.push(decision),
    );
    sampler.capture(3);
    for (let frame = 0; frame < 10; frame++) sampler.offer(frame, 0, frame * 50);
    expect(taken).toEqual(Array.from({ length: 3 }, () => ({ stratum: "campaign", probability: 1 })));
  });
});
