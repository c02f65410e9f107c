import type {
  ErrorCode,
  Facts,
  PredictionRow,
  ProfileStatistics,
  SampleMetadata,
  SamplingPolicy,
} from "@fieldloop/protocol";
import type { PredictionOrigin } from "./control/prediction-batcher.js";
import type { SourceSpec } from "./source-spec.js";

/**
 * What control and the inference host say to each other, over Node's IPC channel with structured clone
 * (`serialization: "advanced"`). Frames never cross it; a sample does when it is taken.
 */

/** A verified package folder, ready to be loaded. */
export interface PackageToRun {
  readonly directory: string;
  readonly packageSha256: string;
}

/** The first message to a host that is to run; it answers `ready`. */
export interface StartMessage {
  readonly kind: "start";
  readonly device: string;
  readonly boot: number;
  /** Number of its first prediction. */
  readonly nextN: number;
  readonly source: SourceSpec;
  readonly sampling: SamplingPolicy;
  readonly profileIntervalSeconds: number;
  readonly package: PackageToRun | undefined;
  /** Frames that killed a host before; they are not run again. */
  readonly quarantined: readonly string[];
  /** Where the hash of the frame in hand is noted before each run. */
  readonly frameMarkPath: string;
  readonly threadCount: number;
}

export type ControlRequest =
  | { readonly kind: "activate"; readonly package: PackageToRun }
  | { readonly kind: "deactivate" }
  | { readonly kind: "capture"; readonly count: number }
  | { readonly kind: "set_condition"; readonly condition: string }
  | { readonly kind: "truth"; readonly n: number }
  | { readonly kind: "facts" }
  | { readonly kind: "self_test"; readonly package: PackageToRun; readonly threadCount: number };

export type ControlMessage =
  | StartMessage
  | { readonly kind: "request"; readonly id: number; readonly request: ControlRequest }
  | {
      readonly kind: "policy";
      readonly sampling: SamplingPolicy;
      readonly profileIntervalSeconds: number;
    }
  | { readonly kind: "stop" };

/** What is answered to each request. */
export interface ControlResponses {
  readonly activate: Activation;
  readonly deactivate: Record<string, never>;
  readonly capture: Record<string, never>;
  readonly set_condition: { readonly condition: string };
  readonly truth: { readonly label: string } | undefined;
  readonly facts: Facts;
  readonly self_test: SelfTest;
}

/** A session that answers from now on. */
export interface Activation {
  readonly origin: PredictionOrigin;
  readonly variant: string;
  readonly executionProvider: string;
  readonly loadMs: number;
  /** How long the loop could take no frame because of the swap, milliseconds. */
  readonly swapGapMs: number;
  /** Frames that the queue dropped from the begin of loading to the swap. */
  readonly framesDroppedDuringSwap: number;
}

export interface SelfTest {
  readonly variant: string;
  readonly executionProvider: string;
  readonly goldenCases: number;
  /** Largest difference from an expected value. */
  readonly differenceMax: number;
  readonly loadMs: number;
  readonly residentBytes: number;
}

export interface WireFailure {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface Heartbeat {
  readonly kind: "heartbeat";
  /** How long the frame in hand has been running; 0 between frames. */
  readonly runningMs: number;
  /** What a run usually takes; 0 before the first. */
  readonly expectedMs: number;
  readonly framesSeen: number;
  readonly framesDropped: number;
  readonly framesFailed: number;
  readonly samplesTaken: number;
  readonly residentBytes: number;
}

export type HostMessage =
  | { readonly kind: "ready"; readonly activation: Activation | undefined }
  | Heartbeat
  | {
      readonly kind: "predictions";
      readonly origin: PredictionOrigin;
      readonly firstN: number;
      readonly rows: readonly PredictionRow[];
    }
  | {
      readonly kind: "profile";
      readonly model: string;
      readonly version: number;
      readonly from: number;
      readonly to: number;
      readonly statistics: ProfileStatistics;
      readonly framesDropped: number;
      readonly framesFailed: number;
    }
  | { readonly kind: "sample"; readonly metadata: SampleMetadata; readonly payload: Uint8Array }
  | {
      readonly kind: "feedback";
      readonly items: readonly { readonly n: number; readonly label: string }[];
    }
  | { readonly kind: "warning"; readonly failure: WireFailure; readonly active: boolean }
  | { readonly kind: "response"; readonly id: number; readonly value: unknown }
  | { readonly kind: "refused"; readonly id: number; readonly failure: WireFailure }
  | { readonly kind: "stopped" };
