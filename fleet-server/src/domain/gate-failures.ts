import type { GateTest } from "@fieldloop/protocol";
import { alphaOf, type EvidenceTest } from "./gate-budget.js";
import { GATE_MINIMA, type GateContext } from "./gate-arms.js";
import { judgesSilence } from "./gate-silence.js";
import { confidence, devices, line, percent, proves } from "./gate-lines.js";
import { hasFailed, isSettled } from "./rollout.js";
import { logEvidenceAbove, proportionBounds } from "./statistics/binomial-mixture.js";

/** From this share of the wave on, and beyond the limit, nothing needs to be proven. */
const FAILED_FLOOR = 0.5;

/** Devices of the wave that failed, were rejected, rolled back, cancelled, or ran out of time; silent ones too where no control group tells. */
export function failedShare(context: GateContext): GateTest {
  const { canary } = context;
  const silent = judgesSilence(context) ? 0 : canary.filter(({ state }) => state === "silent").length;
  const failed = canary.filter(({ state }) => hasFailed(state)).length + silent;
  const settled = canary.filter(({ state }) => isSettled(state)).length;
  return shareOfFailed(context, "failed_share", { failed, settled, all: canary.length }, () =>
    silent > 0
      ? `${failed} of ${devices(canary.length)} failed (${silent} of them silent)`
      : `${failed} of ${devices(canary.length)} failed`,
  );
}

/** Devices of waves that had passed and have left the version since. */
export function earlierWaves(context: GateContext): GateTest {
  const { failed, count } = context.evidence.earlier;
  return shareOfFailed(
    context,
    "earlier_waves",
    { failed, settled: count, all: count },
    () => `${failed} of ${devices(count)} of earlier waves left the version since`,
  );
}

/** Below `GATE_MINIMA.failedShareDevices` the limit is a plain one; above, it bounds the probability that a device fails. */
function shareOfFailed(
  { settings, evidence }: GateContext,
  test: EvidenceTest,
  { failed, settled, all }: { failed: number; settled: number; all: number },
  text: () => string,
): GateTest {
  const limit = settings.failedShareMax;
  const value = all === 0 ? 0 : failed / all;
  const beyond = value > limit;
  const small = all < GATE_MINIMA.failedShareDevices;
  const counts = { canary: { devices: all, count: failed, of: all } };
  if (small || limit === 0) {
    return line(test, beyond ? "fail" : "pass", text(), { value, limit, ...counts });
  }
  const alpha = alphaOf(test, settings, evidence.wave);
  const logE = logEvidenceAbove(failed, settled - failed, limit);
  const { low, high } = proportionBounds(failed, settled, alpha);
  const stops = beyond && (value >= FAILED_FLOOR || proves(logE, alpha));
  return line(
    test,
    stops ? "fail" : beyond ? "inconclusive" : "pass",
    `${text()}, ${percent(low)} to ${percent(high)} with ${confidence(alpha)}; at most ${percent(limit)} allowed`,
    { value, limit, low, high, alpha, logE, ...counts },
  );
}

/** Devices that talk but are not done when the wave's time is over; silent ones are silence's matter. */
export function waveTimeout({ settings, evidence, canary }: GateContext): GateTest {
  const open = canary.filter(
    ({ state, silentSeconds }) => !isSettled(state) && silentSeconds <= settings.silenceSeconds,
  );
  const late = evidence.waveTimedOut ? open.length : 0;
  const limit = Math.floor(settings.failedShareMax * canary.length);
  return line(
    "wave_timeout",
    late > limit ? "fail" : "pass",
    late > 0 ? `${devices(late)} not done in time` : "in time",
    { value: late, limit },
  );
}

export function running({ canary }: GateContext): GateTest {
  const active = canary.filter(({ state }) => state === "active").length;
  return line(
    "running",
    active > 0 ? "pass" : "fail",
    `${active} of ${devices(canary.length)} report the new package as running`,
    { value: active, limit: 1 },
  );
}

/** The minimum sample: nine of ten devices that run the version and talk, all of them in a small wave. */
export function predictions({ settings, canary }: GateContext): GateTest {
  const counts = canary
    .filter(({ state, silentSeconds }) => state === "active" && silentSeconds <= settings.silenceSeconds)
    .map(({ during }) => during.predictions)
    .sort((a, b) => a - b);
  const value = counts[Math.floor((1 - GATE_MINIMA.predictionsShare) * counts.length)] ?? 0;
  const share = counts.length < 10 ? "each device" : "nine of ten devices";
  return line(
    "predictions",
    value >= settings.predictionsMin ? "pass" : "inconclusive",
    `at least ${value} predictions of the new version from ${share}; ${settings.predictionsMin} are wanted`,
    { value, limit: settings.predictionsMin },
  );
}
