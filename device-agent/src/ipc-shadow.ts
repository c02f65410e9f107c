import type { PackageToRun, WireFailure } from "./ipc.js";
import type { PredictionOrigin } from "./control/prediction-batcher.js";

/**
 * What is said when a candidate runs in shadow. Control starts a process for it and hands the host that runs the lane one end of a socket
 * whose other end the candidate's process has: frames go from the one to the other, and never through control.
 */

/** Number of the candidate's end of the socket among the open files of its process: behind its standard ones and the channel to control. */
export const SHADOW_SOCKET_FD = 4;

/** When a shadow has seen enough (after both), and what it may take. */
export interface ShadowTerms {
  readonly seconds: number;
  /** Frames answered by both versions. */
  readonly predictions: number;
  /** Share of the device's processor time, over all cores, 0..1. */
  readonly cpuShareMax: number;
}

/** To the candidate's process: open the package, then answer what comes through the socket. */
export interface ShadowOpenRequest {
  readonly kind: "shadow_open";
  readonly package: PackageToRun;
  /** Folder of the active version's package: what its answers mean, and what the frames look like. */
  readonly activeDirectory: string;
  /** The source was told how to cut its windows and will cut them so for any version. */
  readonly isCutBySource: boolean;
  /** Where the hash of its frame in hand is noted before each run. */
  readonly frameMarkPath: string;
}

export interface ShadowOpened {
  readonly origin: PredictionOrigin;
  readonly variant: string;
  readonly executionProvider: string;
  /** What it answers depends on the frames before: it is shown frames that follow on one another. */
  readonly isSequential: boolean;
  /** Whether it can read the frames that the lane's source gives to the active version. */
  readonly fits: boolean;
}

/** To the host that runs the lane; its end of the socket comes with it. */
export interface ShadowBeginRequest {
  readonly kind: "shadow_begin";
  readonly lane: string;
  readonly deployment: string;
  /** The candidate's. */
  readonly version: number;
  readonly isSequential: boolean;
  readonly cpuShareMax: number;
  /** The active version that it stands beside: with another one there is nothing to compare. */
  readonly against: string;
}

export type ShadowHostRequest =
  | ShadowBeginRequest
  /** Answered when everything that was counted is told. */
  | { readonly kind: "shadow_end"; readonly lane: string };

export interface ShadowResponses {
  readonly shadow_open: ShadowOpened;
  readonly shadow_begin: Record<string, never>;
  readonly shadow_end: Record<string, never>;
}

/** What happened since it was told last. */
export interface ShadowDelta {
  /** Predictions of the active version; each is compared, skipped, failed, or in hand still. */
  readonly frames: number;
  readonly compared: number;
  readonly skipped: number;
  readonly failed: number;
  readonly disagreements: number;
  /** Sums over the compared frames, milliseconds. */
  readonly candidateMs: number;
  readonly activeMs: number;
  /** Processor time of the candidate's process, and of the host for showing it frames, milliseconds. */
  readonly cpuMs: number;
  /** Label of the active version, that of the candidate, how often. */
  readonly flips: readonly (readonly [active: string, candidate: string, count: number])[];
  /** A quarter of the candidate's last runs took at most so long, milliseconds: what it needs when nothing is in its way. */
  readonly quickMs: number;
  /** Why a frame failed, the last time. */
  readonly lastFailure: WireFailure | undefined;
}

export type ShadowMessage =
  | {
      readonly kind: "shadow";
      readonly lane: string;
      readonly deployment: string;
      readonly delta: ShadowDelta;
    }
  /** The candidate decided otherwise about prediction `n`, which was told already. */
  | { readonly kind: "disagreement"; readonly lane: string; readonly n: number; readonly value: number }
  /** Of the candidate's process. */
  | {
      readonly kind: "shadow_beat";
      /** How long the run in hand takes already, and what the process did in that time; 0 between runs. */
      readonly runningMs: number;
      readonly runningCpuMs: number;
      /** What a run usually takes; 0 before the first. */
      readonly expectedMs: number;
      readonly residentBytes: number;
    };
