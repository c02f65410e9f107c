import type {
  ErrorCode,
  Facts,
  PredictionRow,
  ProfileStatistics,
  SampleMetadata,
  SamplingPolicy,
} from "@fieldloop/protocol";
import type { PredictionOrigin } from "./control/prediction-batcher.js";
import type { GovernorTimes } from "./host/governor.js";
import type { LocalRequest, LocalResponses } from "./ipc-local.js";
import type { ShadowHostRequest, ShadowMessage, ShadowOpenRequest, ShadowResponses } from "./ipc-shadow.js";
import type { LaneSpec } from "./lane-spec.js";

/**
 * What control and the inference host say to each other, over Node's IPC channel with structured clone
 * (`serialization: "advanced"`). Frames never cross it; a sample does when it is taken. A candidate in shadow gets its frames through a
 * socket of its own: see `ipc-shadow.ts`.
 */

/** A verified package folder, ready to be loaded. */
export interface PackageToRun {
  readonly directory: string;
  readonly packageSha256: string;
  /** What to run it on, best first; each is tried when the one before does not work. The CPU in the end, and where there are none. */
  readonly providers?: readonly ProviderToRun[];
}

/** An execution provider with the variant that it runs. */
export interface ProviderToRun {
  readonly executionProvider: string;
  readonly variant: string;
  /** Share of the graph's nodes that each execution provider ran when it was tried, where that was told. */
  readonly shares?: Readonly<Record<string, number>> | undefined;
  /** Time of one run when it was tried, milliseconds. */
  readonly medianMs?: number | undefined;
}

/** How a package's execution provider is chosen. */
export interface ProviderSearch {
  /** Only these; all that this device may have where there are none. */
  readonly executionProviders: readonly string[] | undefined;
  /** Open Inference Protocol servers. */
  readonly endpoints: readonly string[];
  /** Where results are remembered. */
  readonly directory: string;
  readonly threadCount: number;
}

/** Numbers of predictions that a lane has reserved and not used yet: `next` up to `end`, exclusive. */
export interface NumberRange {
  readonly next: number;
  readonly end: number;
}

export interface LaneStart {
  readonly spec: LaneSpec;
  readonly package: PackageToRun | undefined;
  readonly numbers: NumberRange;
  /** Where the hashes of its frames in hand are noted before each run. */
  readonly frameMarkPath: string;
}

/** The first message to a host that is to run; it answers `ready`. */
export interface StartMessage {
  readonly kind: "start";
  readonly device: string;
  readonly boot: number;
  readonly lanes: readonly LaneStart[];
  /** The first block of prediction numbers that no lane has reserved. */
  readonly nextBlock: number;
  readonly sampling: SamplingPolicy;
  readonly profileIntervalSeconds: number;
  /** Frames that killed a host before; they are not run again. */
  readonly quarantined: readonly string[];
  /** Frames of which one may have killed a host: each runs alone, so that the next end names the one. */
  readonly suspects: readonly string[];
  /** Threads that run models at the same time, over all lanes. */
  readonly threadCount: number;
  /** Folder of the `thermal_zone*` files; undefined where temperatures are not looked at. */
  readonly thermalPath: string | undefined;
  /** Those of the limits by default. */
  readonly governorTimes: GovernorTimes | undefined;
}

export type ControlRequest =
  | { readonly kind: "activate"; readonly lane: string; readonly package: PackageToRun }
  /** What the lane runs is opened anew, on the first of its providers: that was left for the next one, and works again. */
  | { readonly kind: "reopen"; readonly lane: string; readonly package: PackageToRun }
  | { readonly kind: "deactivate"; readonly lane: string }
  | { readonly kind: "capture"; readonly count: number }
  | { readonly kind: "set_condition"; readonly condition: string; readonly lane: string | undefined }
  | { readonly kind: "truth"; readonly n: number }
  | {
      readonly kind: "facts";
      /** Where it is remembered which execution providers work. */
      readonly directory: string;
    }
  | {
      readonly kind: "self_test";
      readonly package: PackageToRun;
      readonly threadCount: number;
      /** Undefined: the first of the package's providers, or the CPU where it has none, without a search. */
      readonly search?: ProviderSearch;
    }
  | ShadowOpenRequest
  | ShadowHostRequest
  | LocalRequest;

export type ControlMessage =
  | StartMessage
  | { readonly kind: "request"; readonly id: number; readonly request: ControlRequest }
  /** Nobody waits for the answer to this request any more. */
  | { readonly kind: "cancel"; readonly id: number }
  | {
      readonly kind: "policy";
      readonly sampling: SamplingPolicy;
      readonly profileIntervalSeconds: number;
    }
  | { readonly kind: "stop" };

/** What is answered to each request. */
export interface ControlResponses extends LocalResponses, ShadowResponses {
  readonly activate: Activation;
  readonly reopen: Activation;
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
  /** Share of the graph's nodes that each execution provider runs, where it is known. */
  readonly providerShares?: Readonly<Record<string, number>>;
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
  /** What loading and running it added to the resident memory of the process. */
  readonly memoryBytes?: number;
  /** Median of one run on the golden inputs, all parts of a pipeline together, milliseconds; undefined where there are none. */
  readonly runMs?: number;
  /** What to run it on, best first; empty without a search. */
  readonly providers?: readonly ProviderToRun[];
  /** The provider that was asked for does not run the package. */
  readonly providerTrouble?: WireFailure;
}

export interface WireFailure {
  readonly code: ErrorCode;
  readonly message: string;
}

/** Frames of one lane since the host started. */
export interface FrameCounts {
  readonly framesSeen: number;
  /** Found no place in the queue. */
  readonly framesDropped: number;
  /** Beyond the lane's rate. */
  readonly framesSkipped: number;
  readonly framesFailed: number;
  /** What the source counted, by its own names. */
  readonly sourceCounts: Readonly<Record<string, number>>;
}

export interface LaneBeat extends FrameCounts {
  readonly name: string;
  /** How long the run in hand takes already; 0 between runs. */
  readonly runningMs: number;
  /** What such a run usually takes; 0 before the first. */
  readonly expectedMs: number;
  /** Frames a second that the governor allows; null where it limits nothing. */
  readonly rateMax: number | null;
}

export interface Heartbeat {
  readonly kind: "heartbeat";
  readonly lanes: readonly LaneBeat[];
  /** How long the inference in hand for a program on this machine takes already; 0 where none is. */
  readonly localRunningMs: number;
  readonly residentBytes: number;
}

/** What a lane runs from now on; undefined where nothing is assigned to it, or what is did not load. */
export interface LaneActivation {
  readonly lane: string;
  readonly activation: Activation | undefined;
}

export type HostMessage =
  | { readonly kind: "ready"; readonly lanes: readonly LaneActivation[] }
  | Heartbeat
  /** The host changed what a lane runs by itself: another variant, or another execution provider. */
  | { readonly kind: "changed"; readonly lane: string; readonly activation: Activation }
  | {
      readonly kind: "predictions";
      readonly lane: string;
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
  | ShadowMessage
  | { readonly kind: "sample"; readonly metadata: SampleMetadata; readonly payload: Uint8Array }
  | {
      readonly kind: "feedback";
      readonly items: readonly { readonly n: number; readonly label: string }[];
    }
  | {
      readonly kind: "warning";
      readonly failure: WireFailure;
      readonly active: boolean;
      /** Whose trouble it is; the whole host's where there is none. */
      readonly lane?: string;
    }
  | { readonly kind: "response"; readonly id: number; readonly value: unknown }
  | { readonly kind: "refused"; readonly id: number; readonly failure: WireFailure }
  | { readonly kind: "stopped" };
