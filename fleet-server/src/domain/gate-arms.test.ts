import { gateSettingsSchema, gateVerdictSchema, type GateSettings, type GateTest } from "@fieldloop/protocol";
import { Random } from "@fieldloop/runtime/simulate";
import { describe, expect, it } from "vitest";
import { alphaOf, FALSE_STOP_WEIGHTS, type EvidenceTest } from "./gate-budget.js";
import { judgeGate, judgeHealth } from "./gate.js";
import type { DeviceEvidence, GateEvidence, ShadowCounts } from "./gate-evidence.js";
import { makeArm, makeDevice, makeEvidence, type DeviceChange } from "./gate-evidence.test.kit.js";

const CANARIES = 100;
const CONTROLS = 300;
const SETTINGS = { failedShareMax: 0.02, silenceSeconds: 600 };

/** A wave against a control group; devices differ, the first `changed` of the wave are as `change` says. */
function fleet(changed = 0, change: (at: number) => DeviceChange = () => ({})): DeviceEvidence[] {
  const random = new Random(3);
  const own = (): DeviceChange => {
    const factor = Math.exp(0.5 * random.normal());
    const latency = (drift: number) => ({ count: 1000, mean: 2 * factor * Math.exp(0.05 * drift), m2: 100 });
    const confidence = () => ({ count: 1000, mean: 0.9 + 0.01 * random.normal(), m2: 10 });
    return {
      before: { latencyMs: latency(random.normal()), confidence: confidence(), seconds: 86_400 },
      during: { latencyMs: latency(random.normal()), confidence: confidence() },
    };
  };
  return [
    ...makeArm("canary", CANARIES, (at) => {
      const device = own();
      return at < changed ? merge(device, change(at)) : device;
    }),
    ...makeArm("control", CONTROLS, own),
  ];
}

function merge(device: DeviceChange, change: DeviceChange): DeviceChange {
  return {
    ...device,
    ...change,
    before: { ...device.before, ...change.before },
    during: { ...device.during, ...change.during },
  };
}

const judge = (
  devices: readonly DeviceEvidence[],
  settings: Partial<GateSettings> = {},
  change: Partial<GateEvidence> = {},
) =>
  judgeGate(
    gateSettingsSchema.parse({ ...SETTINGS, ...settings }),
    makeEvidence(devices, { elapsedSeconds: 7200, ...change }),
    0,
  );
const lineOf = (tests: readonly GateTest[], test: string): GateTest =>
  tests.find((line) => line.test === test)!;

describe("the gate of a wave with a control group", () => {
  it("passes a version that is as good, with an interval on every comparison", () => {
    const judged = judge(fleet());
    expect(judged.verdict).toBe("pass");
    expect(() => gateVerdictSchema.parse(JSON.parse(JSON.stringify(judged)))).not.toThrow();
    for (const test of ["silence", "latency", "accuracy", "confidence", "class_mix"]) {
      const { low, high, value, eValue, confidence } = lineOf(judged.tests, test);
      expect(low!).toBeLessThanOrEqual(value!);
      expect(high!).toBeGreaterThanOrEqual(value!);
      expect(eValue!).toBeLessThan(5);
      expect(confidence!).toBeGreaterThan(0.99);
    }
  });

  it.each<[string, number, (at: number) => DeviceChange, string]>([
    [
      "a third slower everywhere",
      CANARIES,
      () => ({ during: { latencyMs: { count: 1000, mean: 9, m2: 1 } } }),
      "latency",
    ],
    ["a tenth silent for good", 10, () => ({ silentSeconds: 7200 }), "silence"],
    ["five devices in crash loops", 5, () => ({ during: { crashes: 12 } }), "crashed_devices"],
    ["each device crashes now and then", CANARIES, (at) => ({ during: { crashes: at % 2 } }), "crash_rate"],
    [
      "a tenth less accurate",
      CANARIES,
      () => ({ during: { feedback: { successes: 17, count: 20 } } }),
      "accuracy",
    ],
    [
      "unsure",
      CANARIES,
      (at) => ({ during: { confidence: { count: 1000, mean: 0.7 + 0.001 * (at % 7), m2: 10 } } }),
      "confidence",
    ],
    [
      "it sees scratches everywhere",
      CANARIES,
      (at) => ({ during: { classes: { ok: 500 - at, scratch: 500 + at } } }),
      "class_mix",
    ],
    ["a seventh failed", 15, () => ({ state: "failed" }), "failed_share"],
  ])("stops a version: %s", (_, changed, change, test) => {
    const judged = judge(fleet(changed, change));
    expect(lineOf(judged.tests, test).verdict).toBe("fail");
    expect(judged.verdict).toBe("fail");
    expect(lineOf(judged.tests, test).eValue!).toBeGreaterThanOrEqual(
      1 / (1 - lineOf(judged.tests, test).confidence!),
    );
  });

  it.each<[string, number, (at: number) => DeviceChange]>([
    ["one device in a crash loop", 1, () => ({ during: { crashes: 40 } })],
    ["one device that throttles", 1, () => ({ during: { latencyMs: { count: 1000, mean: 500, m2: 1 } } })],
    ["two silent devices", 2, () => ({ silentSeconds: 7200 })],
    ["one failed device", 1, () => ({ state: "failed" })],
    [
      "a device without a past",
      1,
      () => ({ before: { predictions: 0, latencyMs: { count: 0, mean: 0, m2: 0 } } }),
    ],
  ])("does not stop for %s", (_, changed, change) => {
    expect(judge(fleet(changed, change)).verdict).not.toBe("fail");
  });

  it("does not take its control group's silence for the version's", () => {
    const night = fleet().map((device, at) => (at % 5 === 0 ? { ...device, silentSeconds: 7200 } : device));
    expect(lineOf(judge(night).tests, "silence").verdict).toBe("pass");
  });

  it("waits where harm shows but is not proven, and for proof where that is asked for", () => {
    const some = (at: number): DeviceChange => ({
      during: { feedback: { successes: 18 - (at % 2), count: 20 } },
    });
    expect(lineOf(judge(fleet(40, some)).tests, "accuracy").verdict).toBe("inconclusive");
    const proof = { passByProof: true, accuracyDropMax: 0.001 };
    expect(lineOf(judge(fleet(), proof).tests, "accuracy").verdict).toBe("inconclusive");
    expect(
      lineOf(judge(fleet(), { passByProof: true, accuracyDropMax: 0.05 }).tests, "accuracy").verdict,
    ).toBe("pass");
  });

  it("says what it saw in words", () => {
    const { tests } = judge(fleet(5, () => ({ during: { crashes: 12 } })));
    expect(lineOf(tests, "crash_rate").detail).toMatch(
      /^crashes: 60 in 100 device-hours on canary, 0 in 300 device-hours on control; ratio/,
    );
    expect(lineOf(tests, "crashed_devices").canary).toEqual({ devices: 100, count: 5, of: 100 });
    const judged = judgeHealth(
      gateSettingsSchema.parse(SETTINGS),
      makeEvidence(fleet(CANARIES, () => ({ during: { latencyMs: { count: 1000, mean: 9, m2: 1 } } }))),
      0,
    );
    expect(lineOf(judged.tests, "latency").detail).toMatch(
      /^mean latency \d\.\d\d times, between \d\.\d\d and \d\.\d\d with 99\.\d % confidence \(100 devices against 300, each beside its own past\); at most 1\.25 times allowed$/,
    );
  });

  it("judges 5,000 devices in a time that fits a tick", () => {
    const many = [
      ...makeArm("canary", 1000),
      ...makeArm("control", 4000, (at) => ({ during: { crashes: at % 40 === 0 ? 1 : 0 } })),
    ];
    judge(many);
    const begin = performance.now();
    judge(many);
    expect(performance.now() - begin).toBeLessThan(500);
  });
});

describe("shadow counts", () => {
  const shadow = (counts: Partial<ShadowCounts>): DeviceEvidence[] => [
    makeDevice("one", {
      shadow: {
        frames: 5000,
        compared: 5000,
        disagreements: 200,
        labelled: { bothRight: 0, onlyActiveRight: 0, onlyCandidateRight: 0, bothWrong: 0 },
        ...counts,
      },
    }),
  ];
  const labelled = (onlyActiveRight: number, onlyCandidateRight: number) => ({
    labelled: { bothRight: 0, onlyActiveRight, onlyCandidateRight, bothWrong: 0 },
  });

  it.each<[string, Partial<ShadowCounts>, Partial<GateSettings>, string]>([
    ["few disagreements, no label", { disagreements: 10 }, {}, "pass"],
    ["many disagreements, no label wanted", {}, {}, "pass"],
    ["many disagreements, labels wanted", {}, { shadowLabelsMin: 50 }, "inconclusive"],
    [
      "fewer disagreements than labels wanted, all labelled",
      { disagreements: 20, ...labelled(10, 10) },
      { shadowLabelsMin: 50 },
      "pass",
    ],
    ["the candidate loses", labelled(70, 20), {}, "fail"],
    ["the candidate wins", labelled(20, 70), { shadowLabelsMin: 50 }, "pass"],
    ["the candidate loses, within what is allowed", labelled(70, 20), { shadowDropMax: 0.05 }, "pass"],
  ])("%s", (_, counts, settings, verdict) => {
    expect(lineOf(judge(shadow(counts), settings).tests, "shadow_labels").verdict).toBe(verdict);
  });

  it("may limit how often versions disagree", () => {
    const limit = { shadowDisagreementMax: 0.02 };
    expect(lineOf(judge(shadow({}), limit).tests, "shadow_disagreement").verdict).toBe("fail");
    expect(lineOf(judge(shadow({ disagreements: 20 }), limit).tests, "shadow_disagreement").verdict).toBe(
      "pass",
    );
  });
});

describe("the error of a gate", () => {
  it("is shared out over tests and waves, and never exceeded", () => {
    const settings = gateSettingsSchema.parse({});
    const tests = Object.keys(FALSE_STOP_WEIGHTS) as EvidenceTest[];
    const judged = tests.filter((test) => test !== "shadow_disagreement");
    let sum = 0;
    for (let wave = 1; wave <= 5000; wave++) {
      for (const test of judged) sum += alphaOf(test, settings, wave);
    }
    expect(sum).toBeLessThan(settings.falseStopMax);
    expect(sum).toBeGreaterThan(0.999 * settings.falseStopMax);
  });

  it("goes to the others where a test is left out", () => {
    const all = gateSettingsSchema.parse({ shadowDisagreementMax: 0.1 });
    const few = gateSettingsSchema.parse({ accuracyDropMax: null, shadowDropMax: null });
    expect(alphaOf("latency", few, 1)).toBeGreaterThan(alphaOf("latency", all, 1));
  });
});
