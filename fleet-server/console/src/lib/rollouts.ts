import type {
  GateTest,
  RolloutActionName,
  RolloutDeviceCounts,
  RolloutDeviceView,
  RolloutState,
  RolloutView,
  WaveView,
} from "@fieldloop/protocol";
import { formatCount, formatNumber, formatPercent, formatPoints } from "./format.js";

/** The groups of a bar: they leave no device out. */
export const DEVICE_GROUPS = [
  "active",
  "updating",
  "silent",
  "failed",
  "cancelled",
  "skipped",
  "waiting",
] as const;

/** The first wave that has not passed. */
export function currentWave(rollout: RolloutView): WaveView | undefined {
  return rollout.waves.find((wave) => wave.state !== "passed");
}

/** What a person may ask for; `approve_wave` is `approve` with a wave's number, `revert` an abort that takes everything back. */
export type Action = Exclude<RolloutActionName, "approve"> | "approve" | "approve_wave";
const FROM: Record<Action, readonly RolloutState[]> = {
  start: ["draft", "scheduled"],
  approve: ["awaiting_approval"],
  approve_wave: ["running"],
  resume: ["paused"],
  retry: ["running", "paused", "succeeded"],
  next_wave: ["running", "paused"],
  pause: ["running"],
  abort: ["draft", "awaiting_approval", "scheduled", "running", "paused"],
  roll_back: ["running", "paused", "succeeded", "aborted"],
};

/** What may be asked of the rollout now; the server checks again. */
export function allowedActions(rollout: RolloutView): Action[] {
  const wave = currentWave(rollout);
  const failed = rollout.waves.some(({ state }) => state === "failed");
  const applies: Partial<Record<Action, boolean>> = {
    approve_wave: wave?.state === "pending" && wave.approval?.given === null,
    resume: !failed,
    retry: rollout.counts.failed + rollout.counts.cancelled + rollout.counts.silent > 0,
    next_wave: wave !== undefined && wave.state !== "pending",
    roll_back: asked(rollout.counts) > 0,
  };
  return (Object.keys(FROM) as Action[]).filter(
    (action) => FROM[action].includes(rollout.state) && applies[action] !== false,
  );
}

function asked(counts: RolloutDeviceCounts): number {
  return counts.active + counts.updating + counts.failed + counts.cancelled + counts.silent;
}

export const ACTION_TITLE: Record<Action, string> = {
  start: "Start",
  approve: "Approve",
  approve_wave: "Let the wave begin",
  resume: "Resume",
  retry: "Retry failed",
  next_wave: "Pass the wave by hand",
  pause: "Pause",
  abort: "Abort",
  roll_back: "Roll back",
};

/** A written reason of ten letters or more is part of it. */
export function needsReason(action: Action): boolean {
  return action === "next_wave";
}

/** The body of the action's request. */
export function actionBody(action: Action, rollout: RolloutView, reason: string): Record<string, unknown> {
  if (action !== "approve_wave") return { action, reason };
  return { action: "approve", wave: currentWave(rollout)?.wave, reason };
}

const devices = (count: number) => (count === 1 ? "1 device" : `${formatCount(count)} devices`);

/** Which newer rollouts took devices of it: `superseded by parts@8 on 3 devices`; empty where none did. */
export function supersededText({ superseders }: RolloutView): string {
  if (superseders.length === 0) return "";
  return `superseded by ${superseders.map((one) => `${one.title} on ${devices(one.devices)}`).join(", ")}`;
}

/** Whether newer rollouts took all of its devices: what it reached is theirs to say. */
export function isSuperseded({ superseders, counts }: RolloutView): boolean {
  const taken = superseders.reduce((sum, one) => sum + one.devices, 0);
  return taken > 0 && taken === counts.total;
}

/** What the devices had before, as far as it is the same for all. */
export function beforeText(rollout: RolloutView): string {
  const { subject, from } = rollout;
  if (from?.version && subject.kind === "package") return `${subject.model}@${from.version}`;
  return subject.kind === "package" ? "what they ran before" : "the configuration they had before";
}

/** What the action does to each group of devices, said before it is done. */
export function consequences(action: Action, rollout: RolloutView): string[] {
  const { active, updating, waiting, silent, failed, cancelled } = rollout.counts;
  const { title } = rollout;
  const said = (count: number, what: string, more = "") =>
    count > 0 ? [`${what}: ${devices(count)}.${more}`] : [];
  const untouched = said(waiting, "Not asked yet, stay as they are");
  switch (action) {
    case "start":
    case "approve":
      return said(rollout.waves[0]?.counts.total ?? 0, `Offered ${title} at once, as the first wave`);
    case "approve_wave":
      return said(currentWave(rollout)?.counts.total ?? 0, `Offered ${title} now`);
    case "pause":
      return [
        ...said(active, `Keep ${title}`),
        ...said(updating, "In the middle of the update, go on to its end"),
        ...said(waiting, "Not asked yet, stay as they are until you resume"),
      ];
    case "resume":
      return [
        ...said(waiting, `Offered ${title}, wave after wave`),
        "The wave in progress gets its whole time again.",
      ];
    case "retry":
      return said(failed + cancelled + silent, `Asked for ${title} once more`);
    case "next_wave":
      return [
        "The open wave passes, whatever its gate says; your reason is kept with it.",
        ...said(waiting, "Come next"),
      ];
    case "abort":
      return [
        ...said(active, `Keep ${title}`, " To take it back, roll back instead."),
        ...said(updating + silent, "Have their offer withdrawn"),
        ...untouched,
        "An aborted rollout can’t be resumed.",
      ];
    case "roll_back":
      return [
        ...said(active, `Return from ${title} to ${beforeText(rollout)}`),
        ...said(updating + silent, "Were offered it, return as well when they are reached"),
        ...untouched,
        "A roll-back can’t be resumed.",
      ];
  }
}

/** How far a device's return is; empty where it was not asked to. */
export function restoreText({ restore, restoreDetail }: RolloutDeviceView): string {
  const why = restoreDetail === null ? "" : `: ${restoreDetail}`;
  switch (restore) {
    case "none":
      return "";
    case "offered":
      return "asked to return";
    case "done":
      return "returned to what it had";
    case "silent":
      return `asked to return${why}`;
    case "impossible":
      return `cannot return${why}`;
  }
}

interface TestShape {
  title: string;
  /** How value, ends and limit are written. */
  format: (value: number) => string;
  relation: "≤" | "≥";
}
const asDevices = (value: number) => devices(value);
const asRatio = (value: number) => `× ${formatNumber(value)}`;
const asShare = (value: number) => formatPercent(value);
const atMost = (title: string, format: (value: number) => string): TestShape => ({
  title,
  format,
  relation: "≤",
});
const TESTS: Record<string, TestShape> = {
  failed_share: atMost("Failed devices", asShare),
  silent: atMost("Silent devices", asDevices),
  silence: atMost("Silence, above control", asShare),
  earlier_waves: atMost("Earlier waves that left it", asShare),
  wave_timeout: atMost("Late devices", asDevices),
  running: { title: "Run what was rolled out", format: asDevices, relation: "≥" },
  predictions: { title: "Predictions a device", format: formatCount, relation: "≥" },
  crash_rate: atMost("Crashes an hour, over control", asRatio),
  crashed_devices: atMost("Devices that crashed, over control", asRatio),
  accuracy: atMost("Drop in accuracy", formatPoints),
  latency: atMost("Latency, over its own before", asRatio),
  confidence: atMost("Drop in confidence", formatPoints),
  class_mix: atMost("Shift of a class", formatPoints),
  shadow_disagreement: atMost("Disagreement in shadow", asShare),
  shadow_labels: atMost("Drop by labelled disagreements", formatPoints),
};

export interface TestText {
  title: string;
  value: string;
  limit: string;
  /** The interval's two ends; empty where there is none. */
  interval: string;
}

/** A gate's test in words and units. */
export function describeTest(test: GateTest): TestText {
  const shape = TESTS[test.test] ?? atMost(test.test.replaceAll("_", " "), (value) => formatNumber(value));
  const end = (value: number | null, none: string) => (value === null ? none : shape.format(value));
  return {
    title: shape.title,
    value: test.value === null ? "–" : shape.format(test.value),
    // The relation says which way; a sign would say it again.
    limit: test.limit === null ? "–" : `${shape.relation} ${shape.format(test.limit).replace(/^[+±]/, "")}`,
    interval:
      test.low === null && test.high === null ? "" : `${end(test.low, "–∞")} … ${end(test.high, "∞")}`,
  };
}

/** Failed before undecided before passed: the worst is read first. */
export function worstFirst(tests: readonly GateTest[]): GateTest[] {
  const rank = { fail: 0, inconclusive: 1, pass: 2 };
  return tests.toSorted((a, b) => rank[a.verdict] - rank[b.verdict]);
}

/** Where value, interval and limit of a test lie on one axis, 0..1; undefined where there is nothing to draw. */
export interface TestPlace {
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly limit: number;
}
const PLACE_FAR = 3;

/** The axis holds 0, the limit and the value; ends beyond three times the larger of them are drawn at its edge. */
export function placeTest({ value, limit, low, high }: GateTest): TestPlace | undefined {
  if (value === null || limit === null) return undefined;
  const far = PLACE_FAR * Math.max(Math.abs(limit), Math.abs(value), Number.EPSILON);
  const bound = (end: number) => Math.max(-far, Math.min(far, end));
  const ends = [0, value, limit, low ?? value, high ?? value].map(bound);
  const least = Math.min(...ends);
  const span = Math.max(...ends) - least || 1;
  const at = (end: number) => (bound(end) - least) / span;
  return {
    value: at(value),
    limit: at(limit),
    low: low === null ? (high === null ? at(value) : 0) : at(low),
    high: high === null ? (low === null ? at(value) : 1) : at(high),
  };
}
