import type { EventData, Facts, ShadowTerms } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock, RandomSource } from "../clock.js";
import type { Activation, PackageToRun, SelfTest } from "../ipc.js";
import type { Bandwidth } from "./bandwidth.js";
import type { DeltaTerms } from "./delta-fetch.js";
import type { Rebuild } from "./delta-process.js";
import type { DownloadTerms } from "./download.js";
import type { HttpFetch } from "./http-fetch.js";
import type { PackageCleaner } from "./package-cleaner.js";
import type { PackageStore } from "./package-store.js";
import type { PackageTrust } from "./package-trust.js";
import type { TransferLimits } from "./trust/transfer.js";

/** What the host says a lane runs at this moment: hash and variant of the session that answers. */
export interface RunningPackage {
  readonly packageSha256: string;
  readonly variant: string;
}

/** A candidate that saw the same frames as the active version. */
export interface ShadowOutcome {
  /** Frames that it was offered; those that both predicted on; those of them on which they differ; those it had no time for. */
  readonly frames: number;
  readonly compared: number;
  readonly disagreements: number;
  readonly skipped: number;
  readonly candidateMeanMs: number;
  readonly activeMeanMs: number;
}

/** What a shadow run is told. */
export interface ShadowRequest {
  readonly deployment: string;
  readonly candidate: PackageToRun;
  readonly terms: ShadowTerms;
}

/** Resolves when the terms are met. @throws FieldloopError where the candidate cannot be run beside the active version */
export type RunShadow = (request: ShadowRequest, signal: AbortSignal) => Promise<ShadowOutcome>;

/** What an updater works with, and whom it tells. */
export interface UpdaterOptions {
  readonly directory: string;
  /** Whose deployments they are; `main` by default. */
  readonly lane?: string;
  /** The model that the lane is for; any where there is none. */
  readonly laneModel?: string | null;
  /** Shared by all lanes of a device; one of its own where there is none. */
  readonly cleaner?: PackageCleaner;
  readonly server: string;
  readonly credential: string;
  readonly trust: PackageTrust;
  readonly facts: Facts;
  readonly packages: PackageStore;
  readonly bandwidth: Bandwidth;
  readonly fetch: HttpFetch;
  /** Makes files of deltas. Left out: every file travels whole. */
  readonly rebuild?: Rebuild | undefined;
  readonly clock: Clock;
  /** Of the device at this moment (IANA name); the system's by default. */
  readonly timeZone?: () => string;
  readonly random: RandomSource;
  readonly log: Logger;
  /** Golden cases in a process of their own. @throws FieldloopError */
  readonly selfTest: (candidate: PackageToRun, signal: AbortSignal) => Promise<SelfTest>;
  /** Left out: no deployment is shadowed, whatever its terms say. */
  readonly shadow?: RunShadow | undefined;
  /**
   * Loads beside the running session and swaps; undefined unloads.
   * @throws FieldloopError with the old one still running; once `signal` aborts, whatever the host does with it
   */
  readonly activate: (
    target: PackageToRun | undefined,
    signal: AbortSignal,
  ) => Promise<Activation | undefined>;
  /** Undefined between two hosts and before the first version. */
  readonly running: () => RunningPackage | undefined;
  readonly emit: (event: EventData) => void;
  readonly onChange: () => void;
  readonly onCorrupt: (message: string) => void;
  readonly pollMs?: number;
  /** Times of downloads, and between tries; those of the limits by default. */
  readonly times?: Partial<UpdaterTimes>;
}

export interface UpdaterTimes {
  readonly download: Partial<DownloadTerms>;
  readonly delta: Partial<DeltaTerms>;
  /** Of one transfer of trust metadata. */
  readonly trust: Partial<TransferLimits>;
  readonly trustRetryMinMs: number;
  readonly storageRetryMinMs: number;
  readonly windowPollMs: number;
  readonly updaterRetryMs: number;
  readonly activationStopMs: number;
}
