import type { GateTest } from "@fieldloop/protocol";
import type { DeviceEvidence, DeviceStats } from "./gate-evidence.js";
import { alphaOf } from "./gate-budget.js";
import { comparableDevices, GATE_MINIMA, type GateContext } from "./gate-arms.js";
import { levelVerdict } from "./gate-levels.js";
import { confidence, count, devices, line, percent, points, proves } from "./gate-lines.js";
import type { Counted } from "./intervals.js";
import {
  contrastBounds,
  contrastEvidence,
  contrastOf,
  shareOfDevices,
  type Contrast,
  type Total,
} from "./statistics/device-contrast.js";
import { shareContrast } from "./statistics/proportions.js";

/** Drop in accuracy that matters. */
const SCALE = 0.05;

interface Comparison {
  /** Drop in accuracy. */
  readonly contrast: Contrast;
  readonly told: string;
  /** Judged predictions of the new version. */
  readonly judged: number;
}

/**
 * Accuracy by feedback. With enough devices that have it: each device beside its own past, the wave against the control group,
 * devices as the unit. With fewer: the judged predictions of the wave before and after (or, without a past, the control group's), as if each
 * were independent.
 */
export function accuracy(context: GateContext): GateTest {
  const { settings, evidence, canary, control } = context;
  const limit = settings.accuracyDropMax!;
  const compared = compareByDevice(context) ?? compareByPrediction(canary, control);
  if (!compared) {
    const before = feedbackOf(canary.flatMap((device) => device.before ?? []));
    return line(
      "accuracy",
      "pass",
      `not compared: ${before.count} judged predictions of the version before`,
      {
        limit,
      },
    );
  }
  const { contrast, told, judged } = compared;
  if (judged < GATE_MINIMA.feedback) {
    return line(
      "accuracy",
      "inconclusive",
      `${told}: ${GATE_MINIMA.feedback} judged predictions are wanted`,
      {
        limit,
      },
    );
  }
  const alpha = alphaOf("accuracy", settings, evidence.wave);
  const logE = contrastEvidence(contrast, limit, SCALE);
  const bounds = contrastBounds(contrast, SCALE, alpha);
  const enough = judged >= GATE_MINIMA.feedbackEnough;
  return line(
    "accuracy",
    levelVerdict(settings, contrast.value, bounds, limit, proves(logE, alpha), enough),
    `${told}; drop ${points(contrast.value)}, between ${points(bounds.low)} and ${points(bounds.high)} with ${confidence(alpha)}; at most ${points(limit)} allowed`,
    { value: contrast.value, limit, ...bounds, alpha, logE },
  );
}

function compareByDevice(context: GateContext): Comparison | undefined {
  const arms = comparableDevices<Total>(context, ({ feedback }) =>
    feedback.count > 0 ? { sum: feedback.count - feedback.successes, weight: feedback.count } : null,
  );
  if (!arms) return undefined;
  const canary = shareOfDevices(arms.canary);
  const control = shareOfDevices(arms.control);
  const judged = arms.canary.reduce((sum, { during }) => sum + during.weight, 0);
  const change = (value: number): string => points(-value);
  return {
    contrast: contrastOf(canary, control),
    judged,
    told: arms.ownPast
      ? `accuracy changed by ${change(canary.value)} on ${devices(arms.canary.length)} (${count(judged)} judged), by ${change(control.value)} on ${arms.control.length} of the control group`
      : `accuracy ${percent(1 - canary.value)} on ${devices(arms.canary.length)} (${count(judged)} judged), ${percent(1 - control.value)} on ${arms.control.length} of the control group`,
  };
}

function compareByPrediction(
  canary: readonly DeviceEvidence[],
  control: readonly DeviceEvidence[],
): Comparison | undefined {
  const after = feedbackOf(canary.map(({ during }) => during));
  const before = feedbackOf(canary.flatMap((device) => device.before ?? []));
  const beside = feedbackOf(control.map(({ during }) => during));
  const reference = before.count >= GATE_MINIMA.feedback ? before : beside;
  if (reference.count < GATE_MINIMA.feedback) return undefined;
  const name = reference === before ? "before" : "on control";
  return {
    contrast: shareContrast(reference, after),
    judged: after.count,
    told: `${shareOf(reference)} ${name}, ${shareOf(after)} after`,
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
