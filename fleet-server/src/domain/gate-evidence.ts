import type { RolloutDeviceState } from "./rollout.js";

/** Count, mean and sum of squared deviations from it (Welford 1962): merges exactly, stays exact to 1e9 counts. */
export interface Moments {
  readonly count: number;
  readonly mean: number;
  /** Sum of squared deviations from the mean; variance is `m2 / (count - 1)`. */
  readonly m2: number;
}

/** What one version did on one device in one stretch of time. */
export interface DeviceStats {
  readonly predictions: number;
  /** How long the version ran, in seconds: the exposure in which crashes are counted. */
  readonly seconds: number;
  readonly latencyMs: Moments;
  /** Of the predicted class, 0..1. */
  readonly confidence: Moments;
  /** Predictions per class name. */
  readonly classes: Readonly<Record<string, number>>;
  /** Crashes of the inference host. */
  readonly crashes: number;
  /** Predictions that feedback called right, of those it judged. */
  readonly feedback: { readonly successes: number; readonly count: number };
}

/** Candidate beside active version on the same frames of one device, cumulative per deployment. */
export interface ShadowCounts {
  readonly frames: number;
  /** Frames on which both answered. */
  readonly compared: number;
  readonly disagreements: number;
  /** Disagreements that were labelled, by who was right. */
  readonly labelled: {
    readonly bothRight: number;
    readonly onlyActiveRight: number;
    readonly onlyCandidateRight: number;
    readonly bothWrong: number;
  };
}

/**
 * One device as a gate sees it. Which devices are canary and which control must not depend on anything that is measured: the tests
 * that compare both rest on it.
 */
export interface DeviceEvidence {
  readonly device: string;
  /** Control: a device of the target that was not offered the version yet and runs the one before. */
  readonly arm: "canary" | "control";
  /** Of the canary; meaningless for control. */
  readonly state: RolloutDeviceState;
  /** The version before on this device, in a stretch that ended when the wave began; null where there is none. */
  readonly before: DeviceStats | null;
  /** Since the wave began: the new version on a canary, the version before on control. */
  readonly during: DeviceStats;
  /** Seconds since it was last heard, at most since the wave began; counted alike in both arms. */
  readonly silentSeconds: number;
  /** Of the canary, where it ran in shadow first. */
  readonly shadow: ShadowCounts | null;
}

/** Everything that a gate looks at. All counts only grow from one look to the next. */
export interface GateEvidence {
  /** From 1. */
  readonly wave: number;
  readonly devices: readonly DeviceEvidence[];
  /** Devices of waves that passed before, and those of them that have left the new version since. */
  readonly earlier: { readonly count: number; readonly failed: number };
  /** Seconds since the wave began. */
  readonly elapsedSeconds: number;
  readonly waveTimedOut: boolean;
  /** How often this wave was judged before, for the record: no test depends on it. */
  readonly look: number;
}
