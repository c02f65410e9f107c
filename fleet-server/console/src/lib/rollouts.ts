import type { GateVerdict, RolloutState, RolloutView, WaveView } from "@fieldloop/protocol";
import { formatCount, formatNumber, formatPercent, formatPoints } from "./format.js";
import type { DeviceStep } from "./kinds.js";

/** Where the devices of a rollout or wave are, in five groups that leave none out. */
export interface DeviceCounts {
  total: number;
  active: number;
  /** Offered and on its way. */
  moving: number;
  /** Rejected, failed, timed out, rolled back or cancelled. */
  failed: number;
  silent: number;
  waiting: number;
}

const FAILED: ReadonlySet<DeviceStep> = new Set([
  "rejected",
  "failed",
  "timed_out",
  "rolled_back",
  "cancelled",
]);
export type DeviceGroup = Exclude<keyof DeviceCounts, "total">;

export function groupOf(state: DeviceStep): DeviceGroup {
  if (state === "active" || state === "silent" || state === "waiting") return state;
  if (state === "skipped") return "waiting";
  return FAILED.has(state) ? "failed" : "moving";
}

export function countDevices(waves: readonly WaveView[]): DeviceCounts {
  const counts: DeviceCounts = { total: 0, active: 0, moving: 0, failed: 0, silent: 0, waiting: 0 };
  for (const { counts: of } of waves) {
    counts.total += of.total;
    counts.active += of.active;
    counts.moving += of.updating;
    counts.failed += of.failed;
    counts.silent += of.silent;
    counts.waiting += of.waiting + of.skipped;
  }
  return counts;
}

/** The first wave that has not passed. */
export function currentWave(rollout: RolloutView): WaveView | undefined {
  return rollout.waves.find((wave) => wave.state !== "passed");
}

/** What the devices had before, where it is one version of the same model. */
export function fromTitle({ subject, from }: RolloutView): string | undefined {
  if (subject.kind === "config") return from?.configId ? `config ${from.configId}` : undefined;
  return from?.version ? `${subject.model}@${from.version}` : undefined;
}

export type Action = "start" | "approve" | "pause" | "resume" | "abort" | "roll_back";
const FROM: Record<Action, readonly RolloutState[]> = {
  start: ["draft", "scheduled"],
  approve: ["awaiting_approval"],
  pause: ["running"],
  resume: ["paused"],
  abort: ["draft", "awaiting_approval", "scheduled", "running", "paused"],
  roll_back: ["running", "paused", "succeeded", "aborted"],
};

/** What may be asked of the rollout now; the server checks again. */
export function allowedActions(rollout: RolloutView): Action[] {
  const failed = rollout.waves.some((wave) => wave.state === "failed");
  return (Object.keys(FROM) as Action[]).filter(
    (action) => FROM[action].includes(rollout.state) && !(action === "resume" && failed),
  );
}

export const ACTION_TITLE: Record<Action, string> = {
  start: "Start",
  approve: "Approve",
  pause: "Pause",
  resume: "Resume",
  abort: "Abort",
  roll_back: "Roll back",
};

const devices = (count: number) => (count === 1 ? "1 device" : `${formatCount(count)} devices`);

/** What the action does to each group of devices, said before it is done. */
export function consequences(action: Action, rollout: RolloutView): string[] {
  const { active, moving, waiting, silent } = countDevices(rollout.waves);
  const version = rollout.title;
  const before = fromTitle(rollout) ?? "what they had before";
  const said = (count: number, what: string, more = "") =>
    count > 0 ? [`${what}: ${devices(count)}.${more}`] : [];
  const untouched = said(waiting, "Not asked yet, stay as they are");
  switch (action) {
    case "start":
    case "approve":
      return said(rollout.waves[0]?.counts.total ?? 0, `Offered ${version} at once, as the first wave`);
    case "pause":
      return [
        ...said(active, `Keep ${version}`),
        ...said(moving, "In the middle of the update, go on to its end"),
        ...said(waiting, "Not asked yet, stay as they are until you resume"),
      ];
    case "resume":
      return [
        ...said(waiting, `Offered ${version}, wave after wave`),
        "The wave in progress gets its whole time again.",
      ];
    case "abort":
      return [
        ...said(active, `Keep ${version}`, " To take it back, roll back instead."),
        ...said(moving + silent, "Were offered it and are not done: the offer is withdrawn"),
        ...untouched,
        "An aborted rollout can’t be resumed, only rolled back.",
      ];
    case "roll_back":
      return [
        ...said(active, `Return from ${version} to ${before}`),
        ...said(moving + silent, "Were offered it, return as well when they are reached"),
        ...untouched,
        "A roll-back can’t be resumed.",
      ];
  }
}

type GateTest = GateVerdict["tests"][number];
interface TestShape {
  title: string;
  /** How value and limit are written. */
  format: (value: number) => string;
  relation: "≤" | "≥";
}
const asDevices = (value: number) => devices(value);
const TESTS: Record<string, TestShape> = {
  failed_share: { title: "Failed devices", format: (value) => formatPercent(value), relation: "≤" },
  silence: { title: "Silent devices", format: (value) => formatPercent(value), relation: "≤" },
  earlier_waves: {
    title: "Earlier waves that left it",
    format: (value) => formatPercent(value),
    relation: "≤",
  },
  wave_timeout: { title: "Late devices", format: asDevices, relation: "≤" },
  running: { title: "Run the new package", format: asDevices, relation: "≥" },
  predictions: { title: "Predictions a device", format: formatCount, relation: "≥" },
  accuracy: { title: "Drop in accuracy", format: formatPoints, relation: "≤" },
  crash_rate: {
    title: "Crashes per hour, new over old",
    format: (value) => `× ${formatNumber(value)}`,
    relation: "≤",
  },
  crashed_devices: {
    title: "Devices that crash, new over old",
    format: (value) => `× ${formatNumber(value)}`,
    relation: "≤",
  },
  confidence: { title: "Drop in confidence", format: formatPoints, relation: "≤" },
  class_mix: { title: "Move of a class’s share", format: formatPoints, relation: "≤" },
  shadow_disagreement: {
    title: "Disagreement in shadow",
    format: (value) => formatPercent(value),
    relation: "≤",
  },
  shadow_labels: { title: "Drop in accuracy, by labels", format: formatPoints, relation: "≤" },
  latency: { title: "Latency, new over old", format: (value) => `× ${formatNumber(value)}`, relation: "≤" },
};

export interface TestText {
  title: string;
  value: string;
  limit: string;
}

/** A gate's test in words and units. */
export function describeTest(test: GateTest): TestText {
  const shape = TESTS[test.test] ?? {
    title: test.test.replaceAll("_", " "),
    format: (value: number) => formatNumber(value),
    relation: "≤",
  };
  return {
    title: shape.title,
    value: test.value === null ? "–" : shape.format(test.value),
    limit: test.limit === null ? "–" : `${shape.relation} ${shape.format(test.limit)}`,
  };
}

/** Failed before undecided before passed: the worst is read first. */
export function worstFirst(tests: readonly GateTest[]): GateTest[] {
  const rank = { fail: 0, inconclusive: 1, pass: 2 };
  return tests.toSorted((a, b) => rank[a.verdict] - rank[b.verdict]);
}
