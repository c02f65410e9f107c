import { rolloutRequestSchema } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { SelectableDevice } from "./groups.js";
import { planWaves, waveOfJoined, type Plan } from "./waves.js";

const device = (id: string, tags: Record<string, string> = {}): SelectableDevice => ({
  device: id,
  tags,
  deviceClass: "linux-x64",
  running: { model: "parts" },
  lanes: [],
});
const fleet = Array.from({ length: 10 }, (_, at) => device(`cam-${at}`, { site: at < 4 ? "lyon" : "oslo" }));
const plan = (waves: unknown, target = fleet, control: unknown = null, rollout = "rol_1"): Plan => {
  const request = rolloutRequestSchema.parse({
    change: { kind: "package", model: "parts", version: 2 },
    target: { group: "all" },
    waves,
    control,
  });
  return planWaves(rollout, target, request);
};
const named = ({ waves, devices }: Plan): string[][] =>
  waves.map(({ wave }) => devices.filter((one) => one.wave === wave).map((one) => one.device));
const sizes = (made: Plan): number[] => named(made).map((wave) => wave.length);

describe("planWaves", () => {
  it("divides by count and cumulative percentage, each device once", () => {
    const made = plan([{ count: 1 }, { percent: 30 }, { percent: 100 }]);
    expect(sizes(made)).toEqual([1, 2, 7]);
    expect(named(made).flat().sort()).toEqual(fleet.map((one) => one.device));
  });

  it("puts named and selected devices where they are named, and keeps them out of earlier waves", () => {
    const made = plan([
      { count: 2 },
      { devices: ["cam-5", "cam-5"] },
      { selector: { tags: { site: "lyon" } } },
      { percent: 100 },
    ]);
    const [first, second, third] = named(made) as [string[], string[], string[]];
    expect(first).toHaveLength(2);
    expect(first.some((id) => id === "cam-5" || Number(id.slice(4)) < 4)).toBe(false);
    expect(second).toEqual(["cam-5"]);
    expect(third.sort()).toEqual(["cam-0", "cam-1", "cam-2", "cam-3"]);
  });

  it("draws the control group by chance from devices that nobody named, and puts it last", () => {
    const made = plan([{ devices: ["cam-0"] }, { percent: 100 }], fleet, { share: 0.3 });
    expect(sizes(made)).toEqual([1, 6, 3]);
    expect(made.devices.filter(({ control }) => control).map(({ wave }) => wave)).toEqual([3, 3, 3]);
    expect(made.waves.at(-1)!.plan).toBeNull();
    expect(sizes(plan([{ percent: 100 }], fleet.slice(0, 3), { share: 0.1 }))).toEqual([3]);
    expect(sizes(plan([{ percent: 100 }], fleet.slice(0, 3), { count: 10 }))).toEqual([1, 2]);
  });

  it("is the same at every call and another for another rollout", () => {
    expect(plan([{ count: 3 }, { percent: 100 }])).toEqual(plan([{ count: 3 }, { percent: 100 }]));
    const firsts = new Set(
      Array.from(
        { length: 20 },
        (_, at) => named(plan([{ count: 1 }, { percent: 100 }], fleet, null, `rol_${at}`))[0]![0],
      ),
    );
    expect(firsts.size).toBeGreaterThan(4);
  });

  it("refuses to leave devices out, and to name one outside the target", () => {
    expect(() => plan([{ percent: 50 }])).toThrow(/leaves 5 of 10 devices out/);
    expect(() => plan([{ devices: ["nobody"] }, { percent: 100 }])).toThrow(/not in the rollout's target/);
  });

  it("leaves out waves that would be empty, but one that a selector may fill later", () => {
    const one = [device("a")];
    expect(sizes(plan([{ count: 1 }, { percent: 100 }], one))).toEqual([1]);
    expect(
      sizes(plan([{ count: 1 }, { selector: { tags: { site: "rome" } } }, { percent: 100 }], one)),
    ).toEqual([1, 0]);
  });

  it("wants the approval of a wave that would be empty before the next one", () => {
    const made = plan([{ count: 1 }, { percent: 10, approvalBefore: true }, { percent: 100 }]);
    expect(sizes(made)).toEqual([1, 9]);
    expect(made.waves.map((wave) => wave.plan?.approvalBefore)).toEqual([false, true]);
  });

  it("puts every device of any target in exactly one wave", () => {
    const wave = fc.oneof(
      fc.record({ percent: fc.integer({ min: 1, max: 100 }) }),
      fc.record({ count: fc.integer({ min: 1, max: 30 }) }),
      fc.constant({ selector: { tags: { site: "lyon" } } }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.array(wave, { maxLength: 5 }),
        fc.option(fc.record({ share: fc.double({ min: 0.01, max: 0.5, noNaN: true }) })),
        (count, waves, control) => {
          const target = Array.from({ length: count }, (_, at) =>
            device(`d${at}`, { site: at % 3 ? "lyon" : "oslo" }),
          );
          const made = plan([...waves, { percent: 100 }], target, control);
          expect(named(made).flat().sort()).toEqual(target.map((one) => one.device).sort());
          expect(made.devices.map(({ position }) => position)).toEqual(made.devices.map((_, at) => at));
          expect(made.waves.length).toBeGreaterThan(0);
        },
      ),
    );
  });
});

describe("a device that joins", () => {
  const waves = plan([
    { count: 1 },
    { percent: 50 },
    { selector: { tags: { site: "rome" } } },
    { percent: 100 },
  ]).waves;
  const passed = (upTo: number) =>
    waves.map((wave) => ({ ...wave, state: wave.wave <= upTo ? ("passed" as const) : wave.state }));

  it("comes where its share of the random order reaches, or where a selector wants it", () => {
    const joined = Array.from(
      { length: 200 },
      (_, at) => waveOfJoined("rol_1", device(`n${at}`), waves).wave,
    );
    expect(new Set(joined)).toEqual(new Set([2, 4]));
    const early = joined.filter((wave) => wave === 2).length;
    expect(early).toBeGreaterThan(70);
    expect(early).toBeLessThan(130);
    expect(waveOfJoined("rol_1", device("n", { site: "rome" }), waves).wave).toBeLessThanOrEqual(3);
  });

  it("comes to the next wave that is still to come where its own has gone on, and to the last where all have", () => {
    for (const at of [0, 1, 2, 3]) {
      expect(waveOfJoined("rol_1", device(`n${at}`), passed(2)).wave).toBeGreaterThan(2);
      expect(waveOfJoined("rol_1", device(`n${at}`), passed(4)).wave).toBe(4);
    }
  });
});
