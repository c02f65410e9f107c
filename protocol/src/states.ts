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
    aborted: [],
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
    running: ["soaking", "failed"],
    soaking: ["passed", "failed", "inconclusive"],
    inconclusive: ["soaking", "passed", "failed"],
    passed: [],
    failed: [],
  },
};

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
