import type { Desired, EventData } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../clock.js";
import type { StartMessage } from "../ipc.js";
import type { LaneSpec } from "../lane-spec.js";
import type { FeedbackGatherer } from "./feedback.js";
import type { HostProcess, HostProcessOptions } from "./host-process.js";
import type { PackageStore } from "./package-store.js";
import type { PredictionsMessage } from "./prediction-feed.js";
import type { ProviderPlans } from "./provider-plans.js";
import type { Quarantine } from "./quarantine.js";
import type { Spool } from "./spool/spool.js";
import type { RunTimes } from "./supervisor.js";
import type { Updater } from "./updater.js";
import type { Warnings } from "./warnings.js";

/** What it asks and tells the updater of a lane. */
export type LaneUpdater = Pick<
  Updater,
  | "toRun"
  | "previous"
  | "deployment"
  | "notePredictions"
  | "noteFramesFailed"
  | "noteHostCrash"
  | "noteMemoryExceeded"
>;

/** What control's end of the host works with, and whom it tells. */
export interface HostLinkOptions {
  readonly directory: string;
  readonly device: string;
  readonly boot: number;
  readonly lanes: readonly LaneSpec[];
  readonly host: HostProcessOptions;
  /** The first one, which is started already. */
  readonly firstHost: HostProcess;
  readonly threadCount: number;
  /** Resident memory above which the host is ended in order and started anew. */
  readonly hostBytesMax: number;
  readonly thermalPath: string | undefined;
  readonly governorTimes: StartMessage["governorTimes"];
  readonly runTimes: Partial<RunTimes> | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly spool: Spool;
  readonly warnings: Warnings;
  readonly feedback: FeedbackGatherer;
  readonly quarantine: Quarantine;
  readonly packages: PackageStore;
  readonly providers: ProviderPlans;
  readonly desired: () => Desired | undefined;
  readonly updater: (lane: string) => LaneUpdater;
  /** Predictions that are numbered and taken. */
  readonly onPredictions: (message: PredictionsMessage) => void;
  /** What it held in memory ended with it. */
  readonly onHostEnded: () => void;
  readonly emit: (event: EventData) => void;
  readonly onChange: () => void;
}

/** Until the fleet says what it wants: nothing is sampled. */
export const DEFAULT_SAMPLING: StartMessage["sampling"] = {
  bytesPerHour: 0,
  randomShare: 0,
  worthMin: 1,
  worthPerMinute: 0,
};
/** As the reported state has room for. */
export const PROVIDER_SHOWN_MAX = 256;
export const DEFAULT_PROFILE_SECONDS = 60;
export const DEFAULT_PREDICTIONS_SECONDS = 2;
