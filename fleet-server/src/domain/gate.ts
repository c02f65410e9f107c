import type { GateSettings, GateVerdict } from "@fieldloop/protocol";
import { newcombeDifference, Z99, type Counted } from "./intervals.js";

/** What one version did on the devices that a gate looks at. */
export interface VersionCounts {
  readonly predictions: number;
  readonly meanLatencyMs: number | null;
  /** Predictions that feedback called right, of those it judged. */
  readonly feedback: Counted;
}

/** Everything a gate looks at: counts of the wave's devices, and both versions on them. */
export interface GateEvidence {
  readonly deviceCount: number;
  /** Rejected, failed, timed out, rolled back or cancelled. */
  readonly failedCount: number;
  readonly silentCount: number;
  /** Devices that report the new package as running. */
  readonly activeCount: number;
  readonly unsettledCount: number;
  readonly waveTimedOut: boolean;
  /** Devices of waves that passed before, and those of them that have left the new version since. */
  readonly earlierCount: number;
  readonly earlierFailedCount: number;
  /** Least predictions of the new version over the active devices. */
  readonly predictionsLeast: number;
  readonly before: VersionCounts;
  readonly after: VersionCounts;
}

type GateTest = Pick<GateVerdict["tests"][number], "test" | "verdict" | "value" | "limit" | "detail">;

/** Judged predictions of each version below which accuracy is not compared: Newcombe's interval is wider than 20 points there. */
export const GATE_FEEDBACK_MIN = 30;
/** Judged predictions of the new version from which the observed drop may pass without the interval's proof. */
export const GATE_FEEDBACK_ENOUGH = 100;
/** Predictions below which a mean latency says nothing (the first runs after a load are slow). */
export const GATE_LATENCY_PREDICTIONS_MIN = 20;

/** The tests that can only get worse by waiting: they end a wave at once. */
export function judgeHealth(settings: GateSettings, evidence: GateEvidence, now: number): GateVerdict {
  return conclude(
    [
      failedShare(settings, evidence),
      silence(settings, evidence),
      earlierWaves(settings, evidence),
      timeout(evidence),
    ],
    now,
  );
}

/** The whole gate at the end of the soak. Any failed test fails it; any undecided one leaves it inconclusive. */
export function judgeGate(settings: GateSettings, evidence: GateEvidence, now: number): GateVerdict {
  const tests = [
    failedShare(settings, evidence),
    silence(settings, evidence),
    earlierWaves(settings, evidence),
    running(evidence),
    predictions(settings, evidence),
  ];
  if (settings.accuracyDropMax !== null) tests.push(accuracy(settings.accuracyDropMax, evidence));
  if (settings.latencyRatioMax !== null) tests.push(latency(settings.latencyRatioMax, evidence));
  return conclude(tests, now);
}

function conclude(tests: GateTest[], time: number): GateVerdict {
  const has = (verdict: GateTest["verdict"]): boolean => tests.some((test) => test.verdict === verdict);
  const plain = { low: null, high: null, confidence: null, eValue: null, canary: null, control: null };
  return {
    verdict: has("fail") ? "fail" : has("inconclusive") ? "inconclusive" : "pass",
    time,
    tests: tests.map((test) => ({ ...test, ...plain })),
  };
}

function failedShare(settings: GateSettings, evidence: GateEvidence): GateTest {
  const failed = evidence.failedCount + evidence.silentCount;
  const value = evidence.deviceCount === 0 ? 0 : failed / evidence.deviceCount;
  return {
    test: "failed_share",
    verdict: value > settings.failedShareMax ? "fail" : "pass",
    value,
    limit: settings.failedShareMax,
    detail: `${failed} of ${evidence.deviceCount} devices failed (${evidence.silentCount} of them silent)`,
  };
}

function silence(settings: GateSettings, evidence: GateEvidence): GateTest {
  const limit = Math.floor(settings.failedShareMax * evidence.deviceCount);
  return {
    test: "silence",
    verdict: evidence.silentCount > limit ? "fail" : "pass",
    value: evidence.silentCount,
    limit,
    detail: `${evidence.silentCount} devices sent nothing for ${settings.silenceSeconds} s`,
  };
}

function earlierWaves(settings: GateSettings, evidence: GateEvidence): GateTest {
  const value = evidence.earlierCount === 0 ? 0 : evidence.earlierFailedCount / evidence.earlierCount;
  return {
    test: "earlier_waves",
    verdict: value > settings.failedShareMax ? "fail" : "pass",
    value,
    limit: settings.failedShareMax,
    detail: `${evidence.earlierFailedCount} of ${evidence.earlierCount} devices of earlier waves left the version since`,
  };
}

function timeout(evidence: GateEvidence): GateTest {
  const late = evidence.waveTimedOut ? evidence.unsettledCount : 0;
  return {
    test: "wave_timeout",
    verdict: late > 0 ? "fail" : "pass",
    value: late,
    limit: 0,
    detail: late > 0 ? `${late} devices were not done in time` : "in time",
  };
}

function running(evidence: GateEvidence): GateTest {
  return {
    test: "running",
    verdict: evidence.activeCount > 0 ? "pass" : "fail",
    value: evidence.activeCount,
    limit: 1,
    detail: `${evidence.activeCount} of ${evidence.deviceCount} devices report the new package as running`,
  };
}

function predictions(settings: GateSettings, evidence: GateEvidence): GateTest {
  const value = evidence.activeCount === 0 ? 0 : evidence.predictionsLeast;
  return {
    test: "predictions",
    verdict: value >= settings.predictionsMin ? "pass" : "inconclusive",
    value,
    limit: settings.predictionsMin,
    detail: `at least ${value} predictions of the new version from each device`,
  };
}

/**
 * Fails only where the drop is beyond its limit at 99 %, and passes early only where it is proven within it at 99 %: the gate looks
 * again at every tick while undecided, and each look is a chance for an accident. With enough feedback the observed drop may pass,
 * so that a small canary can; between the two it waits. Simulated with 300 judged predictions before and 10 more at each look: no
 * drop from 95 % is stopped in 0.5 % of rollouts; 10 points pass in 1.5 %, 20 points never.
 */
function accuracy(dropMax: number, { before, after }: GateEvidence): GateTest {
  const line = (verdict: GateTest["verdict"], value: number | null, detail: string): GateTest => ({
    test: "accuracy",
    verdict,
    value,
    limit: dropMax,
    detail,
  });
  if (before.feedback.count < GATE_FEEDBACK_MIN) {
    return line(
      "pass",
      null,
      `not compared: ${before.feedback.count} judged predictions of the version before`,
    );
  }
  const counts = `${percent(before.feedback)} before, ${percent(after.feedback)} after`;
  const drop = newcombeDifference(before.feedback, after.feedback, Z99);
  if (drop === undefined || after.feedback.count < GATE_FEEDBACK_MIN) {
    return line("inconclusive", null, `${counts}: ${GATE_FEEDBACK_MIN} judged predictions are wanted`);
  }
  const passes =
    drop.high <= dropMax || (drop.value <= dropMax && after.feedback.count >= GATE_FEEDBACK_ENOUGH);
  const verdict = drop.low > dropMax ? "fail" : passes ? "pass" : "inconclusive";
  const points = (share: number): string => (100 * share).toFixed(1);
  return line(
    verdict,
    drop.value,
    `${counts}; drop ${points(drop.value)} points, 99 % interval ${points(drop.low)} to ${points(drop.high)}`,
  );
}

function percent({ successes, count }: Counted): string {
  return count === 0 ? "nothing judged" : `${((100 * successes) / count).toFixed(1)} % of ${count}`;
}

function latency(ratioMax: number, { before, after }: GateEvidence): GateTest {
  const enough = (counts: VersionCounts): boolean => counts.predictions >= GATE_LATENCY_PREDICTIONS_MIN;
  if (!before.meanLatencyMs || after.meanLatencyMs === null || !enough(before) || !enough(after)) {
    return {
      test: "latency",
      verdict: "pass",
      value: null,
      limit: ratioMax,
      detail: "not compared: too few predictions",
    };
  }
  const value = after.meanLatencyMs / before.meanLatencyMs;
  return {
    test: "latency",
    verdict: value > ratioMax ? "fail" : "pass",
    value,
    limit: ratioMax,
    detail: `${before.meanLatencyMs.toFixed(2)} ms before, ${after.meanLatencyMs.toFixed(2)} ms after`,
  };
}
