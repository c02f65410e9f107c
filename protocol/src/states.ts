/** State machines as data: who may follow whom. `next[state]` is the complete list. */
export interface StateMachine<State extends string> {
  readonly initial: State;
  readonly next: Readonly<Record<State, readonly State[]>>;
}

export const DEPLOYMENT_STATES = [
  "offered",
  "downloading",
  "verifying",
  "installed",
  "self_testing",
  "shadowing",
  "activating",
  "probation",
  "active",
  "rejected",
  "failed",
  "timed_out",
  "rolled_back",
  "cancelled",
] as const;
export type DeploymentState = (typeof DEPLOYMENT_STATES)[number];

const stopped = ["failed", "timed_out", "cancelled"] as const;
export const DEPLOYMENT: StateMachine<DeploymentState> = {
  initial: "offered",
  next: {
    // `active` at once where the very package runs already.
    offered: ["downloading", "active", "rejected", ...stopped],
    downloading: ["verifying", "rejected", ...stopped],
    verifying: ["installed", "rejected", ...stopped],
    installed: ["self_testing", ...stopped],
    self_testing: ["shadowing", "activating", ...stopped],
    shadowing: ["activating", ...stopped],
    activating: ["probation", "rolled_back", ...stopped],
    probation: ["active", "rolled_back", "cancelled"],
    active: ["rolled_back"],
    rejected: [],
    failed: [],
    timed_out: [],
    rolled_back: [],
    cancelled: [],
  },
};

export const ROLLOUT_STATES = [
  "draft",
  "awaiting_approval",
  "scheduled",
  "running",
  "paused",
  "succeeded",
  "aborted",
  "rolling_back",
  "rolled_back",
] as const;
export type RolloutState = (typeof ROLLOUT_STATES)[number];
export const ROLLOUT: StateMachine<RolloutState> = {
  initial: "draft",
  next: {
    draft: ["awaiting_approval", "scheduled", "running", "aborted"],
    awaiting_approval: ["scheduled", "running", "aborted"],
    scheduled: ["running", "aborted"],
    running: ["paused", "succeeded", "aborted", "rolling_back"],
    paused: ["running", "aborted", "rolling_back"],
    succeeded: ["rolling_back"],
    // Aborted with its devices kept; what they kept may still prove bad.
    aborted: ["rolling_back"],
    rolling_back: ["rolled_back"],
    rolled_back: [],
  },
};

export const WAVE_STATES = ["pending", "running", "soaking", "passed", "failed", "inconclusive"] as const;
export type WaveState = (typeof WAVE_STATES)[number];
export const WAVE: StateMachine<WaveState> = {
  initial: "pending",
  next: {
    pending: ["running"],
    // Passed from `running` or `failed`: by a person's written word.
    running: ["soaking", "passed", "failed"],
    soaking: ["running", "passed", "failed", "inconclusive"],
    inconclusive: ["running", "soaking", "passed", "failed"],
    passed: [],
    failed: ["running", "passed"],
  },
};

/** A device within a rollout: a deployment's state, or not asked yet, asked and not heard of since, left out. */
export const ROLLOUT_DEVICE_STATES = [...DEPLOYMENT_STATES, "waiting", "silent", "skipped"] as const;
export type RolloutDeviceState = (typeof ROLLOUT_DEVICE_STATES)[number];

/** Why a device of a rollout is not asked now. */
export const HOLD_REASONS = [
  /** Its wave has not begun. */
  "wave",
  /** Held back for comparison. */
  "control",
  /** The rollout waits for a person. */
  "approval",
  /** The rollout's start time has not come, or it is a draft. */
  "schedule",
  /** The rollout is paused. */
  "paused",
  /** Its maintenance window is closed. */
  "window",
  /** More offers in this minute would be too many. */
  "rate",
  /** Too many devices of its site are unavailable. */
  "budget",
  /** Another rollout goes first. */
  "priority",
  /** The version does not fit it. */
  "incompatible",
  /** It is asked when it returns. */
  "offline",
  "suspended",
  /** It failed, and is asked again after a while. */
  "retry",
  /** Left out: no longer in the target, or not known any more. */
  "left",
  /** Left out: a newer rollout says what it has. */
  "superseded",
  /** Left out: the rollout ended before its turn. */
  "ended",
] as const;
export type HoldReason = (typeof HOLD_REASONS)[number];

export const FAILURE_STATUSES = ["new", "confirmed", "in_training", "fixed", "regressed", "ignored"] as const;
export type FailureStatus = (typeof FAILURE_STATUSES)[number];

export const TRAINING_STATES = [
  "queued",
  "running",
  "evaluating",
  "succeeded",
  "failed",
  "cancelled",
] as const;
export type TrainingState = (typeof TRAINING_STATES)[number];
export const TRAINING: StateMachine<TrainingState> = {
  initial: "queued",
  next: {
    queued: ["running", "failed", "cancelled"],
    running: ["evaluating", "failed", "cancelled"],
    evaluating: ["succeeded", "failed", "cancelled"],
    succeeded: [],
    failed: [],
    cancelled: [],
  },
};

export function canTransition<State extends string>(
  machine: StateMachine<State>,
  from: State,
  to: State,
): boolean {
  return machine.next[from].includes(to);
}

export function isFinal<State extends string>(machine: StateMachine<State>, state: State): boolean {
  return machine.next[state].length === 0;
}
