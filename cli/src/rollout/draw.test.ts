import { stripVTControlCharacters } from "node:util";
import {
  rolloutRequestSchema,
  type GateTest,
  type RolloutDeviceView,
  type RolloutView,
  type WaveView,
} from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { countsText, drawRollout, duration, withProgress } from "./draw.js";
import { deviceRows, listRows, showRows } from "./tables.js";

const NOW = Date.UTC(2026, 10, 27, 12);
const NO_COUNTS = {
  total: 0,
  waiting: 0,
  updating: 0,
  active: 0,
  failed: 0,
  cancelled: 0,
  silent: 0,
  skipped: 0,
  holds: {},
  restoring: 0,
  restored: 0,
};

function gateTest(change: Partial<GateTest>): GateTest {
  return {
    test: "crashes",
    verdict: "inconclusive",
    value: 1.2,
    limit: 2,
    low: 0.4,
    high: 3.1,
    confidence: 0.99,
    eValue: 1.4,
    canary: null,
    control: null,
    detail: "3 in 41 device-hours, 2 in 39 on control",
    ...change,
  };
}

function wave(change: Partial<WaveView>): WaveView {
  return {
    wave: 1,
    name: "",
    plan: { count: 5, approvalBefore: false, soakSecondsMin: 0 },
    state: "pending",
    counts: { ...NO_COUNTS, total: 5, waiting: 5, holds: { wave: 5 } },
    approval: null,
    forced: null,
    started: null,
    soakStarted: null,
    soakEnds: null,
    finished: null,
    gate: null,
    looks: 0,
    ...change,
  };
}

function rollout(waves: WaveView[]): RolloutView {
  const request = rolloutRequestSchema.parse({
    change: { kind: "package", model: "parts", version: 7 },
    target: { group: "all" },
  });
  return {
    rollout: "rol_1",
    name: "",
    title: "parts@7",
    subject: { kind: "package", model: "parts", version: 7, packageSha256: "0".repeat(64) },
    from: { version: 6, configId: null },
    state: "running",
    reason: null,
    waitsFor: null,
    created: NOW - 200_000,
    createdBy: "ann",
    started: NOW - 185_000,
    finished: null,
    approval: null,
    request,
    counts: { ...NO_COUNTS, total: 105, active: 46, failed: 3, waiting: 56, holds: { rate: 56 } },
    waves,
    controlCount: 0,
    current: false,
    supersededBy: null,
    superseders: [],
    accuracy: {
      before: { value: null, low: 0, high: 1, successes: 0, count: 0 },
      after: { value: null, low: 0, high: 1, successes: 0, count: 0 },
    },
    revision: 4,
  };
}

const VIEW = rollout([
  wave({ state: "passed", counts: { ...NO_COUNTS, total: 5, active: 5 } }),
  wave({
    wave: 2,
    name: "lyon",
    state: "soaking",
    counts: {
      ...NO_COUNTS,
      total: 100,
      active: 41,
      failed: 3,
      updating: 0,
      waiting: 56,
      holds: { rate: 56 },
    },
    soakStarted: NOW - 1_000,
    soakEnds: NOW + 134_000,
    looks: 7,
    gate: {
      verdict: "inconclusive",
      time: NOW,
      tests: [gateTest({}), gateTest({ test: "latency", low: null, high: null, verdict: "pass" })],
    },
  }),
]);
const PLAIN = { width: 140, now: NOW, colour: false } as const;

describe("drawRollout", () => {
  it("shows the change, each wave with its share, and the gate with its intervals", () => {
    const lines = drawRollout(VIEW, PLAIN);
    expect(lines[0]).toContain("parts@7 from @6   running   3 m 05 s   rol_1");
    expect(lines.find((line) => line.startsWith("wave 1"))).toMatch(/█{40} passed {2}5\/5 active/);
    expect(lines.find((line) => line.startsWith("lyon"))).toContain(
      "soaking 2 m 14 s left  41/100 active, 3 failed",
    );
    expect(lines.find((line) => line.includes("crashes"))).toMatch(
      /… crashes +.*├─+●─+┼─+┤.*3 in 41 device-hours/,
    );
    expect(lines.find((line) => line.includes("latency"))).toMatch(/✔ latency .*●.*┊/);
    expect(lines.at(-1)).toContain("3 failed");
  });

  it("fits any width, in colour too", () => {
    for (const width of [20, 60, 80, 200]) {
      for (const colour of [false, true]) {
        for (const line of drawRollout(VIEW, { ...PLAIN, width, colour })) {
          expect(Array.from(stripVTControlCharacters(line)).length).toBeLessThanOrEqual(width);
        }
      }
    }
  });

  it("draws one failed device of a thousand", () => {
    const counts = { ...NO_COUNTS, total: 1000, active: 999, failed: 1 };
    expect(drawRollout(rollout([wave({ counts })]), PLAIN).join("\n")).toContain("✖");
  });

  it("says of devices whose offer was withdrawn that they were cancelled, not that they failed", () => {
    const counts = { ...NO_COUNTS, total: 4, active: 1, cancelled: 3 };
    const stopped = { ...rollout([wave({ counts })]), state: "aborted" as const };
    expect(countsText(counts)).toBe("1/4 active, 3 cancelled");
    const drawn = drawRollout({ ...stopped, counts }, PLAIN).join("\n");
    expect(drawn).toContain("–".repeat(30));
    expect(drawn).not.toMatch(/✖|failed/);
  });

  it("does not break on limits of zero, unbounded ends and values far out", () => {
    const tests = [
      gateTest({ value: 0, limit: 0, low: 0, high: null }),
      gateTest({ value: 1e9, limit: 0.01, low: 1e8, high: 1e12 }),
      gateTest({ value: null, low: null, high: null }),
      gateTest({ value: -0.2, limit: 0.02, low: -0.4, high: 0.01 }),
    ];
    const gate = { verdict: "fail" as const, time: NOW, tests };
    const lines = drawRollout(rollout([wave({ state: "failed", gate, looks: 1 })]), PLAIN);
    expect(lines.filter((line) => line.includes("crashes"))).toHaveLength(4);
    expect(lines.join("\n")).not.toMatch(/NaN|undefined/);
  });
});

describe("withProgress", () => {
  it("changes counts and states, and keeps what a progress message does not tell", () => {
    const counts = { ...NO_COUNTS, total: 100, active: 100 };
    const after = withProgress(VIEW, {
      rollout: "rol_1",
      time: NOW,
      state: "paused",
      waitsFor: "a person",
      counts,
      waves: [{ wave: 2, state: "inconclusive", counts, looks: 8 }],
    });
    expect(after).toMatchObject({ state: "paused", waitsFor: "a person", title: "parts@7" });
    expect(after.waves.map(({ state }) => state)).toEqual(["passed", "inconclusive"]);
    expect(after.waves[1]!.gate?.verdict).toBe("inconclusive");
  });
});

it("says why devices wait, and durations as people do", () => {
  expect(countsText(VIEW.counts)).toBe("46/105 active, 3 failed, 56 waiting (56 for the rate of offers)");
  expect([999, 59_000, 185_000, 7_800_000].map(duration)).toEqual(["1 s", "59 s", "3 m 05 s", "2 h 10 m"]);
});

describe("a rollout whose devices a newer one took", () => {
  const superseded: RolloutView = {
    ...VIEW,
    state: "succeeded",
    counts: { ...NO_COUNTS, total: 3, skipped: 3 },
    superseders: [{ rollout: "rol_2", title: "parts@8", devices: 3 }],
  };

  it("says which, in the list and by itself", () => {
    expect(listRows([superseded])[1]!.at(-1)).toBe("superseded by parts@8 (rol_2) on 3 devices");
    expect(showRows(superseded)).toContainEqual(["superseded by", "parts@8 (rol_2) on 3 devices"]);
    expect(listRows([VIEW])[1]!.at(-1)).toBe("");
  });
});

describe("deviceRows", () => {
  const DEVICE: RolloutDeviceView = {
    ...{ device: "cam-1", wave: 1, control: false, joined: false, state: "active", hold: null, attempt: 1 },
    ...{ deployment: null, errorCode: null, errorMessage: null, offered: NOW, updated: NOW, previous: null },
    ...{ restore: "none", restoreDetail: null },
  };
  const hold = { reason: "superseded", detail: "rollout rol_2 says what it has" } as const;
  const cancelled = { errorCode: "cancelled", errorMessage: "the rollout was rolled back" };

  it.each<[Partial<RolloutDeviceView>, string]>([
    [{}, ""],
    [{ hold: { reason: "rate", detail: "" } }, "rate"],
    [{ hold, state: "skipped" }, "superseded: rollout rol_2 says what it has"],
    [
      { restore: "impossible", restoreDetail: "it had nothing before" },
      "restore impossible: it had nothing before",
    ],
    [{ ...cancelled, restore: "done" }, "cancelled: the rollout was rolled back; restore done"],
  ])("%j says why: %s", (change, why) => {
    expect(deviceRows([{ ...DEVICE, ...change }])[1]!.at(-1)).toBe(why);
  });
});
