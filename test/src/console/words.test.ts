import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { GateTest, RolloutView } from "@fieldloop/protocol";
import { beforeAll, describe, expect, it } from "vitest";

/** The console's sources are compiled by its bundler alone: the test runner reads them as they are. */
interface Format {
  formatNumber(value: number | null): string;
  formatPercent(share: number | null, digits?: number): string;
  formatPoints(difference: number): string;
  formatBytes(bytes: number): string;
  formatDuration(ms: number): string;
  formatRelative(at: number, now: number): string;
}
interface Rollouts {
  consequences(action: "abort" | "roll_back" | "pause" | "retry", rollout: RolloutView): string[];
  allowedActions(rollout: RolloutView): string[];
  describeTest(test: GateTest): Record<"title" | "value" | "limit" | "interval", string>;
  placeTest(test: GateTest): Record<"value" | "low" | "high" | "limit", number> | undefined;
}
interface Media {
  envelope(values: readonly number[], columns: number): [number, number][];
}
const source = (path: string) =>
  new URL(`../../../fleet-server/console/src/lib/${path}`, import.meta.url).href;
const plain = (text: string) => text.replaceAll("\u202f", " ");

let format: Format;
let rollouts: Rollouts;
let media: Media;
beforeAll(async () => {
  format = (await import(source("format.ts"))) as Format;
  rollouts = (await import(source("rollouts.ts"))) as Rollouts;
  media = (await import(source("media.ts"))) as Media;
});

describe("numbers in the console", () => {
  it("have a unit, and a dash where nothing is known", () => {
    expect(plain(format.formatPercent(0.9421))).toBe("94.2 %");
    expect(plain(format.formatPercent(1))).toBe("100 %");
    expect(format.formatPercent(null)).toBe("–");
    expect(plain(format.formatPoints(-0.004))).toBe("−0.4 pp");
    expect(plain(format.formatBytes(118_345))).toBe("118 kB");
    expect(format.formatNumber(0.031_24)).toBe("0.0312");
    expect(format.formatNumber(Number.NaN)).toBe("–");
  });

  it("say times in one or two units", () => {
    expect(plain(format.formatDuration(185_000))).toBe("3 min 5 s");
    expect(plain(format.formatDuration(7_500_000))).toBe("2 h 5 min");
    expect(plain(format.formatRelative(1_000, 61_000))).toBe("1 min ago");
    expect(plain(format.formatRelative(13_000, 1_000))).toBe("in 12 s");
    expect(format.formatRelative(1_000, 1_500)).toBe("now");
  });
});

describe("an action on a rollout", () => {
  const counts = {
    total: 5,
    active: 1,
    updating: 1,
    failed: 1,
    cancelled: 0,
    silent: 0,
    waiting: 2,
    skipped: 0,
    holds: {},
    restoring: 0,
    restored: 0,
  };
  const rollout = {
    title: "parts@7",
    subject: { kind: "package", model: "parts", version: 7 },
    from: { version: 6, configId: null },
    state: "running",
    counts,
    waves: [
      { wave: 1, state: "passed", counts: { ...counts, total: 2 }, approval: null },
      { wave: 2, state: "running", counts: { ...counts, total: 3 }, approval: null },
    ],
  } as unknown as RolloutView;

  it("says what happens to each group of devices", () => {
    expect(rollouts.consequences("abort", rollout)).toEqual([
      "Keep parts@7: 1 device. To take it back, roll back instead.",
      "Have their offer withdrawn: 1 device.",
      "Not asked yet, stay as they are: 2 devices.",
      "An aborted rollout can’t be resumed.",
    ]);
    expect(rollouts.consequences("roll_back", rollout)[0]).toBe("Return from parts@7 to parts@6: 1 device.");
  });

  it("counts what a person stopped apart from what failed", () => {
    const stopped = { ...counts, active: 0, updating: 0, failed: 0, cancelled: 2 };
    expect(rollouts.consequences("retry", { ...rollout, counts: stopped })).toEqual([
      "Asked for parts@7 once more: 2 devices.",
    ]);
    expect(rollouts.allowedActions({ ...rollout, counts: stopped })).toContain("roll_back");
  });

  it("is offered only where the server allows it", () => {
    expect(rollouts.allowedActions(rollout)).toEqual(["retry", "next_wave", "pause", "abort", "roll_back"]);
    const paused = (state: string, more = {}) =>
      ({ ...rollout, ...more, state: "paused", waves: [{ ...rollout.waves[0], state }] }) as RolloutView;
    expect(rollouts.allowedActions(paused("failed"))).toEqual(["retry", "next_wave", "abort", "roll_back"]);
    expect(rollouts.allowedActions(paused("soaking", { counts: { ...counts, failed: 0 } }))).toEqual([
      "resume",
      "next_wave",
      "abort",
      "roll_back",
    ]);
    const wants = { ...rollout.waves[1], state: "pending", approval: { given: null } };
    expect(rollouts.allowedActions({ ...rollout, waves: [wants] } as RolloutView)).toContain("approve_wave");
    const draft = { ...rollout, state: "draft", counts: { ...counts, active: 0, updating: 0, failed: 0 } };
    expect(rollouts.allowedActions(draft as RolloutView)).toEqual(["start", "abort"]);
  });

  it("has tests of a gate in words, and on an axis that holds its limit", () => {
    const test = { test: "crash_rate", value: 1.5, limit: 2, low: 0.4, high: 90, verdict: "inconclusive" };
    expect(rollouts.describeTest(test as never)).toMatchObject({ limit: "≤ × 2", interval: "× 0.4 … × 90" });
    expect(rollouts.placeTest(test as never)).toEqual({ value: 0.25, limit: 1 / 3, low: 0.4 / 6, high: 1 });
    expect(rollouts.placeTest({ ...test, value: null } as never)).toBeUndefined();
  });
});

describe("a drawn window", () => {
  it("keeps every peak", () => {
    const values = Array.from({ length: 1_000 }, (_, at) => (at === 777 ? 9 : 0));
    const drawn = media.envelope(values, 40);
    expect(drawn).toHaveLength(40);
    expect(Math.max(...drawn.map(([, high]) => high))).toBe(9);
    expect(media.envelope([1, 2], 40)).toEqual([
      [1, 1],
      [2, 2],
    ]);
  });
});

describe("the colours of text", () => {
  const css = readFileSync(
    fileURLToPath(new URL("../../../fleet-server/console/src/styles/tokens.css", import.meta.url)),
    "utf8",
  );
  const tokens = new Map<string, [string, string]>();
  for (const [, name, light, dark] of css.matchAll(
    /--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)/g,
  )) {
    if (!tokens.has(name!)) tokens.set(name!, [light!, dark!]);
  }

  /** Relative luminance and contrast of WCAG 2.2, 1.4.3. */
  const luminance = (colour: string) => {
    const [red, green, blue] = [1, 3, 5].map((from) => {
      const value = Number.parseInt(colour.slice(from, from + 2), 16) / 255;
      return value <= 0.039_28 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  };
  const contrast = (first: string, second: string) => {
    const [low, high] = [luminance(first), luminance(second)].sort((a, b) => a - b);
    return (high! + 0.05) / (low! + 0.05);
  };

  for (const [theme, at] of [
    ["light", 0],
    ["dark", 1],
  ] as const) {
    it(`reach 4.5 to 1 on every ground, and marks 3 to 1: ${theme}`, () => {
      for (const ground of ["bg", "surface", "sunken"]) {
        for (const text of [
          "text",
          "muted",
          "faint",
          "accent",
          "accent-strong",
          "ok",
          "warn",
          "error",
          "unsure",
        ]) {
          expect(
            contrast(tokens.get(text)![at], tokens.get(ground)![at]),
            `${text} on ${ground}`,
          ).toBeGreaterThanOrEqual(4.5);
        }
        expect(contrast(tokens.get("idle")![at], tokens.get(ground)![at])).toBeGreaterThanOrEqual(3);
      }
      expect(contrast(tokens.get("on-accent")![at], tokens.get("accent")![at])).toBeGreaterThanOrEqual(4.5);
    });
  }
});
