import { gateSettingsSchema, type GateSettings } from "@fieldloop/protocol";
import { Random } from "@fieldloop/runtime/simulate";
import { describe, expect, it } from "vitest";
import { judgeGate, judgeHealth, type GateEvidence } from "./gate.js";

const counts = (successes: number, count: number, meanLatencyMs = 2) => ({
  predictions: 1000,
  meanLatencyMs,
  feedback: { successes, count },
});
const healthy: GateEvidence = {
  deviceCount: 10,
  failedCount: 0,
  silentCount: 0,
  activeCount: 10,
  unsettledCount: 0,
  waveTimedOut: false,
  earlierCount: 5,
  earlierFailedCount: 0,
  predictionsLeast: 100,
  before: counts(190, 200),
  after: counts(190, 200),
};
const judge = (settings: Partial<GateSettings>, evidence: Partial<GateEvidence>) =>
  judgeGate(gateSettingsSchema.parse(settings), { ...healthy, ...evidence }, 0);

describe("the gate", () => {
  it.each<[string, Partial<GateSettings>, Partial<GateEvidence>, string, string]>([
    ["everything well", {}, {}, "pass", "failed_share"],
    ["one failed device of ten, none allowed", {}, { failedCount: 1 }, "fail", "failed_share"],
    [
      "one failed device of ten, a tenth allowed",
      { failedShareMax: 0.1 },
      { failedCount: 1 },
      "pass",
      "failed_share",
    ],
    ["one silent device", {}, { silentCount: 1 }, "fail", "silence"],
    ["an earlier device that left the version", {}, { earlierFailedCount: 1 }, "fail", "earlier_waves"],
    ["nobody runs it", {}, { activeCount: 0 }, "fail", "running"],
    ["too few predictions", {}, { predictionsLeast: 49 }, "inconclusive", "predictions"],
    ["accuracy far below", {}, { after: counts(150, 200) }, "fail", "accuracy"],
    ["accuracy a little below", {}, { after: counts(183, 200) }, "inconclusive", "accuracy"],
    [
      "accuracy below, not looked at",
      { accuracyDropMax: null },
      { after: counts(150, 200) },
      "pass",
      "failed_share",
    ],
    [
      "far better after little feedback",
      {},
      { before: counts(100, 200), after: counts(29, 30) },
      "pass",
      "accuracy",
    ],
    ["equal after little feedback", {}, { after: counts(38, 40) }, "inconclusive", "accuracy"],
    ["no feedback before", {}, { before: counts(0, 0) }, "pass", "accuracy"],
    ["no feedback yet after", {}, { after: counts(0, 0) }, "inconclusive", "accuracy"],
    ["four times as slow", {}, { after: counts(190, 200, 8) }, "fail", "latency"],
    ["twice as slow", {}, { after: counts(190, 200, 4) }, "pass", "latency"],
  ])("%s", (_, settings, evidence, verdict, decidedBy) => {
    const judged = judge(settings, evidence);
    expect(judged.verdict).toBe(verdict);
    expect(judged.tests.find(({ test }) => test === decidedBy)!.verdict).toBe(verdict);
  });

  it("stops a wave before its end only for what cannot get better", () => {
    const health = judgeHealth(
      gateSettingsSchema.parse({}),
      { ...healthy, predictionsLeast: 0, after: counts(0, 200) },
      0,
    );
    expect(health.verdict).toBe("pass");
    const late = { ...healthy, unsettledCount: 2, waveTimedOut: true };
    expect(judgeHealth(gateSettingsSchema.parse({}), late, 0).tests.at(-1)).toMatchObject({
      test: "wave_timeout",
      verdict: "fail",
      value: 2,
    });
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
    const rollouts = 1000;
    const ended = { pass: 0, fail: 0, inconclusive: 0 };
    for (let rollout = 0; rollout < rollouts; rollout++) {
      const was = counts(draw(before, 300), 300);
      let right = 0;
      let verdict: keyof typeof ended = "inconclusive";
      for (let judged = 10; judged <= 600 && verdict === "inconclusive"; judged += 10) {
        right += draw(after, 10);
        ({ verdict } = judge({}, { before: was, after: counts(right, judged) }));
      }
      ended[verdict]++;
    }
    expect(ended.pass / rollouts).toBeLessThanOrEqual(passMax);
    expect(ended.fail / rollouts).toBeLessThanOrEqual(failMax);
  });
});
