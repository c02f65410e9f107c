import { gateSettingsSchema, gateVerdictSchema, type GateSettings, type GateTest } from "@fieldloop/protocol";
import { Random } from "@fieldloop/runtime/simulate";
import { describe, expect, it } from "vitest";
import { judgeGate, judgeHealth } from "./gate.js";
import type { DeviceEvidence, GateEvidence } from "./gate-evidence.js";
import { makeArm, makeDevice, makeEvidence, type DeviceChange } from "./gate-evidence.test.kit.js";

const judge = (settings: Partial<GateSettings>, evidence: GateEvidence) =>
  judgeGate(gateSettingsSchema.parse(settings), evidence, 0);
const lineOf = (tests: readonly GateTest[], test: string): GateTest =>
  tests.find((line) => line.test === test)!;

/** The first `changed` devices of ten are as `change` says. */
const ten = (changed = 0, change: DeviceChange = {}): DeviceEvidence[] =>
  makeArm("canary", 10, (at) => (at < changed ? change : {}));
const feedback = (before: [number, number], after: [number, number]): DeviceEvidence[] => [
  makeDevice("one", {
    before: { feedback: { successes: before[0], count: before[1] } },
    during: { feedback: { successes: after[0], count: after[1] } },
  }),
];
const slower = (ratio: number): DeviceChange => ({
  during: { latencyMs: { count: 1000, mean: 2 * ratio, m2: 100 } },
});

describe("the gate of a small wave without a control group", () => {
  it.each<[string, Partial<GateSettings>, readonly DeviceEvidence[], string, string]>([
    ["everything well", {}, ten(), "pass", "failed_share"],
    ["one failed device of ten, none allowed", {}, ten(1, { state: "failed" }), "fail", "failed_share"],
    [
      "one failed device of ten, a tenth allowed",
      { failedShareMax: 0.1 },
      ten(1, { state: "rolled_back" }),
      "pass",
      "failed_share",
    ],
    [
      "two failed devices of ten, a tenth allowed",
      { failedShareMax: 0.1 },
      ten(2, { state: "failed" }),
      "fail",
      "failed_share",
    ],
    [
      "the only device failed",
      { failedShareMax: 0.5 },
      [makeDevice("one", { state: "failed" })],
      "fail",
      "failed_share",
    ],
    ["one silent device", {}, ten(1, { state: "silent", silentSeconds: 90 }), "fail", "silence"],
    ["nobody runs it", {}, ten(10, { state: "installed" }), "fail", "running"],
    [
      "too few predictions on one",
      {},
      ten(1, { during: { predictions: 49 } }),
      "inconclusive",
      "predictions",
    ],
    ["accuracy far below", {}, feedback([190, 200], [150, 200]), "fail", "accuracy"],
    ["accuracy a little below", {}, feedback([190, 200], [183, 200]), "inconclusive", "accuracy"],
    [
      "accuracy below, not looked at",
      { accuracyDropMax: null },
      feedback([190, 200], [150, 200]),
      "pass",
      "failed_share",
    ],
    ["far better after little feedback", {}, feedback([100, 200], [29, 30]), "pass", "accuracy"],
    ["equal after little feedback", {}, feedback([190, 200], [38, 40]), "inconclusive", "accuracy"],
    ["no feedback before", {}, feedback([0, 0], [190, 200]), "pass", "accuracy"],
    ["no feedback yet after", {}, feedback([190, 200], [0, 0]), "inconclusive", "accuracy"],
    ["four times as slow", {}, [makeDevice("one", slower(4))], "fail", "latency"],
    ["twice as slow", {}, [makeDevice("one", slower(2))], "pass", "latency"],
    [
      "it crashes all the time, it never did",
      {},
      [makeDevice("one", { before: { seconds: 86_400 }, during: { seconds: 1800, crashes: 5 } })],
      "fail",
      "crash_rate",
    ],
    [
      "it crashed once, as it does",
      {},
      [makeDevice("one", { before: { seconds: 86_400, crashes: 3 }, during: { crashes: 1 } })],
      "pass",
      "crash_rate",
    ],
  ])("%s", (_, settings, devices, verdict, decidedBy) => {
    const judged = judge(settings, makeEvidence(devices));
    expect(lineOf(judged.tests, decidedBy).verdict).toBe(verdict);
    expect(judged.verdict).toBe(verdict);
    expect(() => gateVerdictSchema.parse(judged)).not.toThrow();
  });

  it("stops when a device of an earlier wave left the version", () => {
    const judged = judge({}, makeEvidence(ten(), { earlier: { count: 5, failed: 1 } }));
    expect(lineOf(judged.tests, "earlier_waves").verdict).toBe("fail");
  });

  it("stops a wave before its end for what is proven, not for what is missing", () => {
    const settings = gateSettingsSchema.parse({});
    const early = makeEvidence(
      ten(10, { during: { predictions: 0, latencyMs: { count: 30, mean: 9, m2: 0 } } }),
    );
    expect(judgeHealth(settings, early, 0).verdict).toBe("pass");
    expect(judgeGate(settings, early, 0).verdict).toBe("fail");
    const late = makeEvidence(ten(2, { state: "downloading" }), { waveTimedOut: true });
    const health = judgeHealth(settings, late, 0);
    expect(lineOf(health.tests, "wave_timeout")).toMatchObject({ verdict: "fail", value: 2, limit: 0 });
    const bad = makeEvidence(feedback([190, 200], [150, 200]));
    expect(judgeHealth(settings, bad, 0).verdict).toBe("fail");
  });

  it.each([
    // Accuracy before and after, then the largest share of rollouts that may pass and that may be stopped.
    [0.95, 0.95, 1, 0.02],
    [0.6, 0.95, 1, 0.001],
    [0.95, 0.85, 0.05, 1],
    [0.95, 0.75, 0.001, 1],
  ])("accuracy %f → %f, looked at after every ten judged predictions", (before, after, passMax, failMax) => {
    const random = new Random(7);
    const draw = (share: number, count: number): number =>
      Array.from({ length: count }).filter(() => random.uniform() < share).length;
    const rollouts = 200;
    const ended = { pass: 0, fail: 0, inconclusive: 0 };
    for (let rollout = 0; rollout < rollouts; rollout++) {
      const was = draw(before, 300);
      let right = 0;
      let verdict: keyof typeof ended = "inconclusive";
      for (let judged = 10; judged <= 600 && verdict === "inconclusive"; judged += 10) {
        right += draw(after, 10);
        ({ verdict } = judge({}, makeEvidence(feedback([was, 300], [right, judged]))));
      }
      ended[verdict]++;
    }
    expect(ended.pass / rollouts).toBeLessThanOrEqual(passMax);
    expect(ended.fail / rollouts).toBeLessThanOrEqual(failMax);
  });
});
