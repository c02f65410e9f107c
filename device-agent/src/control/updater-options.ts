import type { DeploymentState, EventData, PublicKey } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock, RandomSource } from "../clock.js";
import type { Activation, PackageToRun, SelfTest } from "../ipc.js";
import type { PackageCleaner } from "./package-cleaner.js";
import type { PackageStore } from "./package-store.js";

/** What an updater works with, and whom it tells. */
export interface UpdaterOptions {
  readonly directory: string;
  /** Whose deployments they are; `main` by default. */
  readonly lane?: string;
  /** Shared by all lanes of a device; one of its own where there is none. */
  readonly cleaner?: PackageCleaner;
  readonly server: string;
  readonly credential: string;
  readonly fleetKeys: readonly PublicKey[];
  readonly packages: PackageStore;
  readonly fetch: typeof fetch;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  /** Golden cases in a process of their own. @throws FieldloopError */
  readonly selfTest: (candidate: PackageToRun, signal: AbortSignal) => Promise<SelfTest>;
  /** Loads beside the running session and swaps; undefined unloads. @throws FieldloopError with the old one still running */
  readonly activate: (target: PackageToRun | undefined) => Promise<Activation | undefined>;
  readonly emit: (event: EventData) => void;
  readonly onChange: () => void;
  readonly onCorrupt: (message: string) => void;
  /** Where a person or a test wants to know that the files of a state are on disk. */
  readonly onPersisted?: (state: DeploymentState) => void;
  readonly pollMs?: number;
}
