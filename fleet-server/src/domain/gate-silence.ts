import type { GateTest } from "@fieldloop/protocol";
import type { DeviceEvidence } from "./gate-evidence.js";
import { alphaOf } from "./gate-budget.js";
import type { GateContext } from "./gate-arms.js";
import { confidence, devices, line, percent, points, proves } from "./gate-lines.js";
import { contrastBounds } from "./statistics/device-contrast.js";
import { shareContrast } from "./statistics/proportions.js";
import { markedEvidence } from "./statistics/random-labels.js";

/** Where this share of the wave being silent, and none of the control group, would prove nothing, plain limits judge silence. */
const TELLING_SHARE = 0.1;
/** The stretch whose error decides whether a control group is large enough. */
const TELLING_STRETCH = 3;
/** Silent shares that matter differ by about this. */
const SCALE = 0.05;
/** Beyond the limit by so many standard errors (one look's 95 %) the gate waits: looks worse, is not proven. */
const SUSPICION = 1.645;

/**
 * Silence against the control group: devices of both fall silent for reasons of their own (networks, nights, switches), and only
 * more of it in the wave is the version's. Silent is who was heard neither in the last `silenceSeconds` before the current
 * stretch of the wave began, nor since; stretches double: [1, 2), [2, 4), [4, 8) … times `silenceSeconds`. Within one, silent devices only return, which
 * keeps the test valid at all its looks (`markedEvidence`); stretch j has 1 / ((j + 1) (j + 2)) of the test's error.
 */
export function silence(context: GateContext): GateTest {
  const { settings, evidence, canary, control } = context;
  if (!judgesSilence(context)) return plainSilence(context);
  const limit = settings.silentExcessMax!;
  const alpha = alphaOf("silence", settings, evidence.wave);
  const { stretch, since } = stretchOf(evidence.elapsedSeconds, settings.silenceSeconds);
  const isSilent = ({ silentSeconds }: DeviceEvidence): boolean =>
    stretch >= 0 && evidence.elapsedSeconds - silentSeconds <= since;
  const marked = {
    canary: { marked: canary.filter(isSilent).length, devices: canary.length },
    control: { marked: control.filter(isSilent).length, devices: control.length },
  };
  const share = shareOfStretch(Math.max(stretch, 0));
  const logE = markedEvidence(marked) + Math.log(share);
  const contrast = shareContrast(
    { successes: marked.canary.marked, count: canary.length },
    { successes: marked.control.marked, count: control.length },
  );
  const { low, high } = contrastBounds(contrast, SCALE, alpha * share);
  const beyond = contrast.value > limit;
  const suspicious = contrast.value - limit > SUSPICION * contrast.standardError;
  const told = `${marked.canary.marked} of ${devices(canary.length)} silent (${percent(marked.canary.marked / canary.length)}), ${marked.control.marked} of ${devices(control.length)} in the control group (${percent(marked.control.marked / control.length)})`;
  return line(
    "silence",
    beyond && proves(logE, alpha) ? "fail" : suspicious ? "inconclusive" : "pass",
    `${told}; between ${points(low)} and ${points(high)} more with ${confidence(alpha)}; at most ${points(limit)} more allowed`,
    {
      value: contrast.value,
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

/** Whether the control group is large enough to tell a silent version from a bad day. */
export function judgesSilence({ settings, evidence, canary, control }: GateContext): boolean {
  if (settings.silentExcessMax === null || canary.length === 0 || control.length === 0) return false;
  const logE = markedEvidence({
    canary: { marked: Math.ceil(TELLING_SHARE * canary.length), devices: canary.length },
    control: { marked: 0, devices: control.length },
  });
  return proves(
    logE + Math.log(shareOfStretch(TELLING_STRETCH)),
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

/** Number of the stretch (-1 before the first) and the time in the wave since which a silent device was not heard. */
function stretchOf(elapsedSeconds: number, silenceSeconds: number): { stretch: number; since: number } {
  const stretch = Math.floor(Math.log2(elapsedSeconds / silenceSeconds));
  return stretch < 0 ? { stretch: -1, since: 0 } : { stretch, since: silenceSeconds * (2 ** stretch - 1) };
}

function shareOfStretch(stretch: number): number {
  return 1 / ((stretch + 1) * (stretch + 2));
}
