import type {
  DeviceSummary,
  FailureStatus,
  RolloutDeviceState,
  RolloutState,
  TrainingState,
  WaveState,
} from "@fieldloop/protocol";

/** How a state is drawn: colour and shape. `unsure` is never green: nothing is proven yet. */
export type Kind = "ok" | "busy" | "warning" | "error" | "unsure" | "idle";

export const HEALTH: Record<DeviceSummary["health"], { kind: Kind; title: string; says: string }> = {
  ok: { kind: "ok", title: "OK", says: "Heard from lately, nothing is wrong" },
  warning: { kind: "warning", title: "Warning", says: "It reports a warning" },
  error: { kind: "error", title: "Error", says: "It reports an error" },
  silent: {
    kind: "unsure",
    title: "Silent",
    says: "Connected or expected to be, but nothing was heard for a while",
  },
  offline: { kind: "idle", title: "Offline", says: "It said goodbye or lost its connection" },
};

/** A device in a rollout, or a deployment of its own. */
export type DeviceStep = RolloutDeviceState;
export const DEPLOYMENT_KIND: Record<DeviceStep, Kind> = {
  waiting: "idle",
  skipped: "idle",
  offered: "busy",
  downloading: "busy",
  verifying: "busy",
  installed: "busy",
  self_testing: "busy",
  shadowing: "busy",
  activating: "busy",
  probation: "busy",
  active: "ok",
  rejected: "error",
  failed: "error",
  timed_out: "error",
  rolled_back: "warning",
  cancelled: "idle",
  silent: "unsure",
};

export const ROLLOUT_KIND: Record<RolloutState, Kind> = {
  draft: "idle",
  awaiting_approval: "unsure",
  scheduled: "idle",
  running: "busy",
  paused: "warning",
  succeeded: "ok",
  aborted: "error",
  rolling_back: "warning",
  rolled_back: "warning",
};

export const WAVE_KIND: Record<WaveState, Kind> = {
  pending: "idle",
  running: "busy",
  soaking: "busy",
  passed: "ok",
  failed: "error",
  inconclusive: "unsure",
};

export const TRAINING_KIND: Record<TrainingState, Kind> = {
  queued: "idle",
  running: "busy",
  evaluating: "busy",
  succeeded: "ok",
  failed: "error",
  cancelled: "idle",
};

export const FAILURE_KIND: Record<FailureStatus, Kind> = {
  new: "busy",
  confirmed: "warning",
  in_training: "unsure",
  fixed: "ok",
  regressed: "error",
  ignored: "idle",
};

export const VERDICT_KIND = { pass: "ok", fail: "error", inconclusive: "unsure" } as const;
export const EVIDENCE_KIND = { none: "idle", passed: "ok", failed: "error" } as const;
