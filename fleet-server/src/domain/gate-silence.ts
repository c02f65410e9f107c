import type { GateTest } from "@fieldloop/protocol";
import { alphaOf } from "./gate-budget.js";
import type { GateContext } from "./gate-arms.js";
import { confidence, count, devices, line, percent, points, proves } from "./gate-lines.js";
import { findSilence, shareOfInstant } from "./statistics/silence.js";
import { difference, differenceBounds, differenceError } from "./statistics/proportions.js";
import { markedEvidence, type Marked } from "./statistics/random-labels.js";

/** Where this share of the wave being silent, and none of the control group, would prove nothing, plain limits judge silence. */
const TELLING_SHARE = 0.1;
/** The instant whose error decides whether a control group is large enough. */
const TELLING_INSTANT = 3;
/** Silent shares that matter differ by about this. */
const SCALE = 0.05;
/** Beyond the limit by so many standard errors (one look's 95 %) the gate waits: looks worse, is not proven. */
const SUSPICION = 1.645;

/**
 * Silence against the control group: devices of both fall silent for reasons of their own (networks, nights, switches), and only
 * more of it in the wave is the version's.
 */
export function silence(context: GateContext): GateTest {
  const { settings, evidence, canary, control } = context;
  if (!judgesSilence(context)) return plainSilence(context);
  const limit = settings.silentExcessMax!;
  const alpha = alphaOf("silence", settings, evidence.wave);
  const { share, marked, logE } = findSilence(
    canary.map(({ silentSeconds }) => silentSeconds),
    control.map(({ silentSeconds }) => silentSeconds),
    evidence.elapsedSeconds,
    settings.silenceSeconds,
  );
  const arms = [
    { successes: marked.canary.marked, count: canary.length },
    { successes: marked.control.marked, count: control.length },
  ] as const;
  const { low, high } = differenceBounds(...arms, SCALE, alpha * share);
  const value = difference(...arms);
  const suspicious = value - limit > SUSPICION * differenceError(...arms);
  const told = `${silentOf(marked.canary)} silent, ${silentOf(marked.control)} in the control group`;
  return line(
    "silence",
    value > limit && proves(logE, alpha) ? "fail" : suspicious ? "inconclusive" : "pass",
    `${told}; ${points(low)} to ${points(high)} more with ${confidence(alpha)}; at most ${points(limit)} more allowed`,
    {
      value,
      limit,
      low,
      high,
      alpha,
      logE,
      canary: { devices: canary.length, count: marked.canary.marked, of: canary.length },
      control: { devices: control.length, count: marked.control.marked, of: control.length },
    },
  );
}

function silentOf({ marked, devices: all }: Marked["canary"]): string {
  return `${count(marked)} of ${devices(all)} (${percent(marked / all)})`;
}

/** Whether the control group is large enough to tell a silent version from a bad day. */
export function judgesSilence({ settings, evidence, canary, control }: GateContext): boolean {
  if (settings.silentExcessMax === null || canary.length === 0 || control.length === 0) return false;
  const logE = markedEvidence({
    canary: { marked: Math.ceil(TELLING_SHARE * canary.length), devices: canary.length },
    control: { marked: 0, devices: control.length },
  });
  return proves(
    logE + Math.log(shareOfInstant(TELLING_INSTANT)),
    alphaOf("silence", settings, evidence.wave),
  );
}

function plainSilence({ settings, canary }: GateContext): GateTest {
  const silent = canary.filter(({ state }) => state === "silent").length;
  const value = canary.length === 0 ? 0 : silent / canary.length;
  return line(
    "silence",
    value > settings.failedShareMax ? "fail" : "pass",
    `${devices(silent)} sent nothing for ${settings.silenceSeconds} s`,
    { value, limit: settings.failedShareMax },
  );
}
