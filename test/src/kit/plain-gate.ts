import type { DeviceEvidence, DeviceStats, GateEvidence } from "@fieldloop/fleet-server";

/**
 * A gate as progressive-delivery tools have it: each interval the canary's metrics of that interval are held against plain
 * limits, beside the control group's; so many failed measurements end it. Kind to it: its limits stand halfway between a version that is as
 * good and the bad ones that it is tried on, and it has a control group.
 */
export interface PlainLimits {
  readonly latencyRatioMax: number;
  readonly accuracyDropMax: number;
  readonly crashRatioMax: number;
  readonly silentExcessMax: number;
  readonly failedShareMax: number;
  /** Failed measurements that are forgiven. */
  readonly failuresAllowed: number;
}

interface Interval {
  predictions: number;
  latencySumMs: number;
  crashes: number;
  seconds: number;
  right: number;
  judged: number;
}

export class PlainGate {
  readonly #limits: PlainLimits;
  #last: Record<DeviceEvidence["arm"], Interval> = { canary: sumUp([]), control: sumUp([]) };
  #failures = 0;

  constructor(limits: PlainLimits) {
    this.#limits = limits;
  }

  /** One measurement; true when it was one failure too many. */
  stops(evidence: GateEvidence): boolean {
    const arm = (name: DeviceEvidence["arm"]): DeviceEvidence[] =>
      evidence.devices.filter((device) => device.arm === name);
    const [canary, control] = [arm("canary"), arm("control")];
    const sums = {
      canary: sumUp(canary.map(({ during }) => during)),
      control: sumUp(control.map(({ during }) => during)),
    };
    const now = subtract(sums.canary, this.#last.canary);
    const beside = subtract(sums.control, this.#last.control);
    this.#last = sums;
    if (this.#isBeyond(now, beside) || this.#isAbsent(canary, control)) this.#failures++;
    return this.#failures > this.#limits.failuresAllowed;
  }

  #isBeyond(canary: Interval, control: Interval): boolean {
    const { latencyRatioMax, accuracyDropMax, crashRatioMax } = this.#limits;
    const ratio = (a: number, b: number): number => (b > 0 ? a / b : 0);
    const latency = ({ latencySumMs, predictions }: Interval): number => ratio(latencySumMs, predictions);
    const accuracy = ({ right, judged }: Interval): number => ratio(right, judged);
    return (
      (canary.predictions > 0 && latency(canary) > latencyRatioMax * latency(control)) ||
      (canary.judged > 0 && control.judged > 0 && accuracy(canary) < accuracy(control) - accuracyDropMax) ||
      canary.crashes * control.seconds > crashRatioMax * control.crashes * canary.seconds
    );
  }

  #isAbsent(canary: readonly DeviceEvidence[], control: readonly DeviceEvidence[]): boolean {
    const silent = (arm: readonly DeviceEvidence[]): number =>
      arm.filter(({ silentSeconds }) => silentSeconds > SILENT_SECONDS).length / arm.length;
    const failed = canary.filter(({ state }) => state === "failed").length / canary.length;
    return (
      silent(canary) > silent(control) + this.#limits.silentExcessMax || failed > this.#limits.failedShareMax
    );
  }
}

const SILENT_SECONDS = 1800;

function sumUp(stats: readonly DeviceStats[]): Interval {
  const sum = { predictions: 0, latencySumMs: 0, crashes: 0, seconds: 0, right: 0, judged: 0 };
  for (const { predictions, latencyMs, crashes, seconds, feedback } of stats) {
    sum.predictions += predictions;
    sum.latencySumMs += latencyMs.mean * latencyMs.count;
    sum.crashes += crashes;
    sum.seconds += seconds;
    sum.right += feedback.successes;
    sum.judged += feedback.count;
  }
  return sum;
}

function subtract(a: Interval, b: Interval): Interval {
  return {
    predictions: a.predictions - b.predictions,
    latencySumMs: a.latencySumMs - b.latencySumMs,
    crashes: a.crashes - b.crashes,
    seconds: a.seconds - b.seconds,
    right: a.right - b.right,
    judged: a.judged - b.judged,
  };
}
