import type { GateSettings, GateTest, GateVerdict } from "@fieldloop/protocol";
import { accuracy } from "./gate-accuracy.js";
import { makeContext, type GateContext } from "./gate-arms.js";
import { classMix } from "./gate-classes.js";
import { crashedDevices, crashRate } from "./gate-crashes.js";
import type { GateEvidence } from "./gate-evidence.js";
import { earlierWaves, failedShare, predictions, running, waveTimeout } from "./gate-failures.js";
import { confidenceDrop, latency } from "./gate-levels.js";
import { isShadowed, shadowDisagreement, shadowLabels } from "./gate-shadow.js";
import { silence } from "./gate-silence.js";

/**
 * What may end a wave at any moment: failures beyond what is allowed, and harm that is proven. The tests of evidence are valid at
 * every look, so looking after every report costs nothing: a bad version is stopped as soon as it shows. Only `fail` of this
 * verdict means something; a wave passes by `judgeGate`.
 */
export function judgeHealth(settings: GateSettings, evidence: GateEvidence, now: number): GateVerdict {
  const context = makeContext(settings, evidence);
  // Plain limits on a mean and on a minimum wait for the soak's end: the first runs after a swap are not typical.
  const early = comparisons(context).filter(({ confidence }) => confidence !== null);
  return conclude([...failures(context), waveTimeout(context), ...early], now);
}

/** The whole gate at the end of the soak. Any failed test fails it; any undecided one leaves it inconclusive. */
export function judgeGate(settings: GateSettings, evidence: GateEvidence, now: number): GateVerdict {
  const context = makeContext(settings, evidence);
  return conclude(
    [
      ...failures(context),
      waveTimeout(context),
      running(context),
      predictions(context),
      ...comparisons(context),
    ],
    now,
  );
}

function failures(context: GateContext): GateTest[] {
  return [failedShare(context), silence(context), earlierWaves(context)];
}

/** Each version's behaviour beside the other's; those that the settings leave out are not there. */
function comparisons(context: GateContext): GateTest[] {
  const { settings } = context;
  const tests: GateTest[] = [];
  if (settings.crashRatioMax !== null) tests.push(crashRate(context), crashedDevices(context));
  if (settings.latencyRatioMax !== null) tests.push(latency(context));
  if (settings.accuracyDropMax !== null) tests.push(accuracy(context));
  if (settings.confidenceDropMax !== null) tests.push(confidenceDrop(context));
  if (settings.classShiftMax !== null) tests.push(classMix(context));
  if (isShadowed(context)) {
    if (settings.shadowDisagreementMax !== null) tests.push(shadowDisagreement(context));
    if (settings.shadowDropMax !== null) tests.push(shadowLabels(context));
  }
  return tests;
}

function conclude(tests: GateTest[], time: number): GateVerdict {
  const has = (verdict: GateTest["verdict"]): boolean => tests.some((test) => test.verdict === verdict);
  return { verdict: has("fail") ? "fail" : has("inconclusive") ? "inconclusive" : "pass", time, tests };
}
