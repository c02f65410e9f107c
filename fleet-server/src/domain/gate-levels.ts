import type { GateSettings, GateTest } from "@fieldloop/protocol";
import type { DeviceStats } from "./gate-evidence.js";
import { alphaOf, type EvidenceTest } from "./gate-budget.js";
import { comparableDevices, GATE_MINIMA, tooFew, type GateContext, type Pair } from "./gate-arms.js";
import { confidence, devices, digits, line, points, proves, type Verdict } from "./gate-lines.js";
import type { Bounds } from "./statistics/binomial-mixture.js";
import {
  clipOutliers,
  contrastBounds,
  contrastEvidence,
  contrastOf,
  meanOfDevices,
  type Contrast,
} from "./statistics/device-contrast.js";

/** Logarithm of a ratio of latencies that matters. */
const LATENCY_SCALE = Math.log(1.2);
/** Fall in confidence that matters. */
const CONFIDENCE_SCALE = 0.05;

/**
 * Mean latency of each device over its own before the wave, against what the control group's did meanwhile: the hour of day, the
 * load and what a device is made of fall out. On logarithms, where a device that is slow by nature weighs as one that is quick.
 */
export function latency(context: GateContext): GateTest {
  const { settings } = context;
  const compared = compareLevels(context, ({ latencyMs }) =>
    latencyMs.count >= GATE_MINIMA.predictions && latencyMs.mean > 0 ? Math.log(latencyMs.mean) : null,
  );
  if (!compared) return plainLatency(context);
  return judgeLevel(context, "latency", compared, {
    limit: Math.log(settings.latencyRatioMax!),
    scale: LATENCY_SCALE,
    shown: Math.exp,
    text: (value, low, high) =>
      `mean latency ${value.toFixed(2)} times, between ${low.toFixed(2)} and ${high.toFixed(2)}`,
    allowed: (ratio) => `${digits(ratio)} times`,
  });
}

/** Mean confidence of each device under its own before the wave, beyond what the control group's fell meanwhile. */
export function confidenceDrop(context: GateContext): GateTest {
  const limit = context.settings.confidenceDropMax!;
  const compared = compareLevels(context, ({ confidence: { count, mean } }) =>
    count >= GATE_MINIMA.predictions ? -mean : null,
  );
  if (!compared) return line("confidence", "pass", `not compared: ${tooFew(context)}`, { limit });
  return judgeLevel(context, "confidence", compared, {
    limit,
    scale: CONFIDENCE_SCALE,
    shown: (value) => value,
    text: (value, low, high) =>
      `mean confidence lower by ${points(value)}, between ${points(low)} and ${points(high)}`,
    allowed: points,
  });
}

interface Comparison {
  readonly contrast: Contrast;
  readonly canary: number;
  readonly control: number;
  readonly ownPast: boolean;
}

function compareLevels(
  context: GateContext,
  read: (stats: DeviceStats) => number | null,
): Comparison | undefined {
  const arms = comparableDevices(context, read);
  if (!arms) return undefined;
  const change = ({ during, before }: Pair<number>): number => during - (before ?? 0);
  const [canary, control] = clipOutliers([arms.canary.map(change), arms.control.map(change)]);
  return {
    contrast: contrastOf(meanOfDevices(canary!), meanOfDevices(control!)),
    canary: canary!.length,
    control: control!.length,
    ownPast: arms.ownPast,
  };
}

/** The three verdicts of a number with an interval, and how it is told. Values are on the contrast's scale until shown. */
function judgeLevel(
  { settings, evidence }: GateContext,
  test: EvidenceTest,
  { contrast, canary, control, ownPast }: Comparison,
  how: {
    readonly limit: number;
    readonly scale: number;
    readonly shown: (value: number) => number;
    readonly text: (value: number, low: number, high: number) => string;
    readonly allowed: (limit: number) => string;
  },
): GateTest {
  const alpha = alphaOf(test, settings, evidence.wave);
  const logE = contrastEvidence(contrast, how.limit, how.scale);
  const bounds = contrastBounds(contrast, how.scale, alpha);
  const [value, low, high, limit] = [contrast.value, bounds.low, bounds.high, how.limit].map(how.shown);
  return line(
    test,
    levelVerdict(settings, contrast.value, bounds, how.limit, proves(logE, alpha)),
    `${how.text(value!, low!, high!)} with ${confidence(alpha)} (${devices(canary)} against ${control}, ${ownPast ? "each beside its own past" : "without a past of their own"}); at most ${how.allowed(limit!)} allowed`,
    { value, limit, low, high, alpha, logE },
  );
}

/** Proven beyond the limit fails; excluded passes; between, what is seen passes where no proof is asked for. */
export function levelVerdict(
  settings: GateSettings,
  value: number,
  { high }: Bounds,
  limit: number,
  proven: boolean,
  enough = true,
): Verdict {
  if (proven) return "fail";
  return high <= limit || (!settings.passByProof && enough && value <= limit) ? "pass" : "inconclusive";
}

/** Too few devices to tell the version from chance: the wave's mean against its own before, by a wide limit. Not judged before the soak is over. */
function plainLatency({ settings, canary }: GateContext): GateTest {
  const limit = settings.latencyRatioSmallWaveMax;
  const after = meanLatency(canary.map(({ during }) => during));
  const before = meanLatency(canary.flatMap(({ before: stats }) => stats ?? []));
  if (before === undefined || after === undefined) {
    return line("latency", "pass", "not compared: too few predictions", { limit });
  }
  const value = after / before;
  return line(
    "latency",
    value > limit ? "fail" : "pass",
    `${before.toFixed(2)} ms before, ${after.toFixed(2)} ms after, on ${devices(canary.length)}: too few to compare closer; at most ${digits(limit)} times allowed`,
    { value, limit },
  );
}

function meanLatency(stats: readonly DeviceStats[]): number | undefined {
  let count = 0;
  let sumMs = 0;
  for (const { latencyMs } of stats) {
    count += latencyMs.count;
    sumMs += latencyMs.count * latencyMs.mean;
  }
  return count >= GATE_MINIMA.predictions && sumMs > 0 ? sumMs / count : undefined;
}
