import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BusyMeter } from "../busy-meter.js";
import { AGENT_LIMITS } from "../limits.js";
import { Governor, type GovernorDecision, type GovernorReading } from "./governor.js";
import { readTemperature } from "./readings.js";

const LANES = [
  { name: "camera", priority: 80 },
  { name: "spindle", priority: 20 },
];
const HOT: GovernorReading = { temperatureC: AGENT_LIMITS.governorHotC, busyShare: 0.2, framesDropped: 3 };
const COOL: GovernorReading = {
  temperatureC: AGENT_LIMITS.governorCoolC - 1,
  busyShare: 0.2,
  framesDropped: 0,
};
const BUSY: GovernorReading = { temperatureC: 50, busyShare: 1, framesDropped: 1 };
const STEP_MS = AGENT_LIMITS.governorIntervalMs;

/** Gives it the same reading for a while; the last decision. */
function hold(governor: Governor, from: number, ms: number, reading: GovernorReading): GovernorDecision {
  let decision = governor.update(from, reading);
  for (let now = from + STEP_MS; now <= from + ms; now += STEP_MS) decision = governor.update(now, reading);
  return decision;
}

describe("Governor", () => {
  it("slows the lowest priority down first, then all, and only then takes cheaper variants", () => {
    const governor = new Governor(LANES);
    const seen: unknown[] = [];
    for (let step = 0; step < 8; step++) {
      const { rateShares, cheaper } = hold(governor, step * AGENT_LIMITS.governorHoldMs, 0, HOT);
      seen.push([Object.fromEntries(rateShares), [...cheaper]]);
    }
    expect(seen).toEqual([
      [{ spindle: 0.5 }, []],
      [{ spindle: 0.5, camera: 0.5 }, []],
      [{ spindle: 0.25, camera: 0.5 }, []],
      [{ spindle: 0.25, camera: 0.25 }, []],
      [{ spindle: 0.25, camera: 0.25 }, ["spindle"]],
      [{ spindle: 0.25, camera: 0.25 }, ["spindle", "camera"]],
      [{ spindle: 0.25, camera: 0.25 }, ["spindle", "camera"]],
      [{ spindle: 0.25, camera: 0.25 }, ["spindle", "camera"]],
    ]);
  });

  it("gives everything back when it stays cool, one step at a time", () => {
    const governor = new Governor(LANES);
    hold(governor, 0, 100_000, HOT);
    let now = 100_000;
    let level = 6;
    while (level > 0) {
      now += AGENT_LIMITS.governorRestoreMs + 2 * STEP_MS;
      const next = hold(
        governor,
        now - AGENT_LIMITS.governorRestoreMs - STEP_MS,
        AGENT_LIMITS.governorRestoreMs,
        COOL,
      );
      expect(next.level).toBe(level - 1);
      level = next.level;
    }
    expect(hold(governor, now, STEP_MS, COOL)).toMatchObject({
      level: 0,
      cause: undefined,
      sinceMs: undefined,
    });
  });

  it("never slows the highest priority for load, nor a device with one source", () => {
    const decision = hold(new Governor(LANES), 0, 200_000, BUSY);
    expect(decision.cause).toBe("load");
    expect([...decision.rateShares]).toEqual([["spindle", 0.25]]);
    expect(decision.cheaper.size).toBe(0);
    expect(hold(new Governor([LANES[0]!]), 0, 200_000, BUSY).level).toBe(0);
    expect(hold(new Governor(LANES), 0, 200_000, { ...BUSY, framesDropped: 0 }).level).toBe(0);
  });

  it("neither leaves its bounds nor changes its mind within the hold time, whatever it reads", () => {
    const reading = fc.record({
      temperatureC: fc.option(fc.double({ min: 20, max: 110, noNaN: true }), { nil: undefined }),
      busyShare: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined }),
      framesDropped: fc.nat(3),
    });
    const series = fc.array(fc.tuple(reading, fc.integer({ min: 1, max: 30 })), { maxLength: 60 });
    const property = fc.property(series, (steps) => {
      const governor = new Governor(LANES);
      let now = 0;
      let level = 0;
      let changedAt = Number.NEGATIVE_INFINITY;
      for (const [given, repeats] of steps) {
        for (let repeat = 0; repeat < repeats; repeat++) {
          now += STEP_MS;
          const decision = governor.update(now, given);
          expect(decision.level).toBeGreaterThanOrEqual(0);
          expect(decision.level).toBeLessThanOrEqual(6);
          expect(Math.abs(decision.level - level)).toBeLessThanOrEqual(1);
          if (decision.level !== level) {
            const least =
              decision.level > level ? AGENT_LIMITS.governorHoldMs : AGENT_LIMITS.governorRestoreMs;
            expect(now - changedAt).toBeGreaterThanOrEqual(least);
            changedAt = now;
            level = decision.level;
          }
          for (const share of decision.rateShares.values()) {
            expect(AGENT_LIMITS.governorShares).toContain(share);
          }
          expect(decision.cause === undefined).toBe(decision.level === 0);
        }
      }
      const rested = hold(governor, now, 8 * AGENT_LIMITS.governorRestoreMs, COOL);
      expect(rested.level).toBe(0);
    });
    fc.assert(property, { numRuns: 50 });
  });
});

describe("readings", () => {
  it("gives the hottest zone that is believable, and nothing where there is none", async () => {
    const folder = await mkdtemp(join(tmpdir(), "fieldloop-thermal-"));
    try {
      expect(await readTemperature(folder)).toBeUndefined();
      for (const [zone, text] of Object.entries({
        0: "45000\n",
        1: "71500\n",
        2: "broken",
        3: "2147483647",
      })) {
        await mkdir(join(folder, `thermal_zone${zone}`));
        await writeFile(join(folder, `thermal_zone${zone}`, "temp"), text);
      }
      expect(await readTemperature(folder)).toBe(71.5);
      expect(await readTemperature(join(folder, "nowhere"))).toBeUndefined();
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it("measures how busy the cores are between two readings", async () => {
    const meter = new BusyMeter();
    expect(meter.read()).toBeUndefined();
    let share: number | undefined;
    const deadline = performance.now() + 5_000;
    while (share === undefined && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      share = meter.read();
    }
    expect(share).toBeGreaterThanOrEqual(0);
    expect(share).toBeLessThanOrEqual(1);
  });
});
