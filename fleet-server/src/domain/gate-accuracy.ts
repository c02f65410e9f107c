import type { GateTest } from "@fieldloop/protocol";
import type { DeviceStats } from "./gate-evidence.js";
import { alphaOf } from "./gate-budget.js";
import { comparableDevices, GATE_MINIMA, type GateContext } from "./gate-arms.js";
import { levelVerdict } from "./gate-levels.js";
import { confidence, count, devices, line, percent, points, proves } from "./gate-lines.js";
import type { Counted } from "./intervals.js";
import type { Bounds } from "./statistics/binomial-mixture.js";
import {
  contrastBounds,
  contrastEvidence,
  contrastOf,
  shareOfDevices,
  type Total,
} from "./statistics/device-contrast.js";
import { difference, differenceBounds, differenceEvidence } from "./statistics/proportions.js";

/** Drop in accuracy that matters. */
const SCALE = 0.05;

interface Comparison {
  /** Drop in accuracy. */
  readonly value: number;
  readonly evidence: (limit: number) => number;
  readonly bounds: (alpha: number) => Bounds;
  readonly told: string;
  /** Judged predictions of the new version. */
  readonly judged: number;
}

/**
 * Accuracy by feedback. Where enough devices of both arms have it: each device beside its own past, the wave against the control
 * group, devices as the unit. Else: the judged predictions of the wave before and after (without a past, the control group's), as
 * if each were independent.
 */
export function accuracy(context: GateContext): GateTest {
  const { settings, evidence } = context;
  const limit = settings.accuracyDropMax!;
  const compared = isByDevice(context) ? compareByDevice(context) : compareByPrediction(context);
  if (typeof compared === "string") return line("accuracy", "pass", `not compared: ${compared}`, { limit });
  const { value, told, judged } = compared;
  if (judged < GATE_MINIMA.feedback) {
    const wanted = `${GATE_MINIMA.feedback} judged predictions are wanted`;
    return line("accuracy", "inconclusive", `${told}: ${wanted}`, { limit });
  }
  const alpha = alphaOf("accuracy", settings, evidence.wave);
  const logE = compared.evidence(limit);
  const bounds = compared.bounds(alpha);
  const enough = judged >= GATE_MINIMA.feedbackEnough;
  return line(
    "accuracy",
    levelVerdict(settings, value, bounds, limit, proves(logE, alpha), enough),
    `${told}; drop ${points(value)}, between ${points(bounds.low)} and ${points(bounds.high)} with ${confidence(alpha)}; at most ${points(limit)} allowed`,
    { value, limit, ...bounds, alpha, logE },
  );
}

/** Fixed when the wave begins: by the devices that had feedback before, or by the arms where none had. */
function isByDevice({ canary, control }: GateContext): boolean {
  const had = [canary, control].map(
    (arm) => arm.filter(({ before }) => before && before.feedback.count > 0).length,
  );
  const none = had.every((count) => count === 0);
  const units = none ? [canary.length, control.length] : had;
  return units.every((count) => count >= GATE_MINIMA.devices);
}

/** @returns why not, where there is nothing to compare with */
function compareByDevice(context: GateContext): Comparison | string {
  const arms = comparableDevices<Total>(context, ({ feedback }) =>
    feedback.count > 0 ? { sum: feedback.count - feedback.successes, weight: feedback.count } : null,
  );
  if (!arms) {
    const none = context.canary.every(({ before }) => (before?.feedback.count ?? 0) === 0);
    const told = `fewer than ${GATE_MINIMA.devices} devices of each arm have feedback`;
    return none
      ? told
      : { value: 0, evidence: () => 0, bounds: () => ({ low: -1, high: 1 }), told, judged: 0 };
  }
  const canary = shareOfDevices(arms.canary);
  const control = shareOfDevices(arms.control);
  const contrast = contrastOf(canary, control);
  const judged = arms.canary.reduce((sum, { during }) => sum + during.weight, 0);
  const told = arms.ownPast
    ? `accuracy changed by ${points(-canary.value)} on ${devices(arms.canary.length)} (${count(judged)} judged), by ${points(-control.value)} on ${count(arms.control.length)} of the control group`
    : `accuracy ${percent(1 - canary.value)} on ${devices(arms.canary.length)} (${count(judged)} judged), ${percent(1 - control.value)} on ${count(arms.control.length)} of the control group`;
  return {
    value: contrast.value,
    evidence: (limit) => contrastEvidence(contrast, limit, SCALE),
    bounds: (alpha) => contrastBounds(contrast, SCALE, alpha),
    told,
    judged,
  };
}

/** @returns why not, where there is nothing to compare with */
function compareByPrediction({ canary, control }: GateContext): Comparison | string {
  const after = feedbackOf(canary.map(({ during }) => during));
  const before = feedbackOf(canary.flatMap((device) => device.before ?? []));
  const beside = feedbackOf(control.map(({ during }) => during));
  const reference = before.count >= GATE_MINIMA.feedback ? before : beside;
  if (reference.count < GATE_MINIMA.feedback) {
    return `${before.count} judged predictions of the version before`;
  }
  return {
    value: difference(reference, after),
    evidence: (limit) => differenceEvidence(reference, after, limit, SCALE),
    bounds: (alpha) => differenceBounds(reference, after, SCALE, alpha),
    told: `${shareOf(reference)} ${reference === before ? "before" : "on control"}, ${shareOf(after)} after`,
    judged: after.count,
  };
}

function feedbackOf(stats: readonly DeviceStats[]): Counted {
  return {
    successes: stats.reduce((sum, { feedback }) => sum + feedback.successes, 0),
    count: stats.reduce((sum, { feedback }) => sum + feedback.count, 0),
  };
}

function shareOf({ successes, count: judged }: Counted): string {
  return judged === 0 ? "nothing judged" : `${percent(successes / judged)} of ${count(judged)}`;
}
