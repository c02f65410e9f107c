import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { DeviceState } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock, RandomSource } from "../clock.js";
import { parseLaneSpecs } from "../lane-spec.js";
import type { GovernorTimes } from "../host/governor.js";
import { DiskReserve } from "./disk-reserve.js";
import type { PersistObserver } from "./durable.js";
import { ensureDirectory } from "./files.js";
import type { HttpFetch } from "./http-fetch.js";
import { HostProcess, stdinOf } from "./host-process.js";
import { endLeftoverHost, lockState } from "./process-lock.js";
import type { ProviderOption } from "./provider-plans.js";
import type { RunTimes } from "./supervisor.js";
import type { UpdaterTimes } from "./updater-options.js";

export interface AgentOptions {
  /** Everything that the agent keeps lies here; one agent per folder. */
  readonly directory: string;
  /** Fleet server; wanted at the first start only. */
  readonly server?: string | undefined;
  /** One-time enrolment token; wanted at the first start only. */
  readonly token?: string | undefined;
  /** Wanted device id at enrolment. */
  readonly device?: string | undefined;
  readonly tags?: Readonly<Record<string, string>>;
  /** One for each lane, see `parseLaneSpec`; the first is the one that a device with one source has. */
  readonly source: string | readonly string[];
  /** Port of the local interface on loopback; 0 for any free one. */
  readonly port?: number;
  /** A unix socket for the local interface beside it, for this user alone. */
  readonly socketPath?: string | undefined;
  /** Port of the Open Inference Protocol over gRPC on loopback, 0 for any free one; none where it is left out. */
  readonly grpcPort?: number | undefined;
  /** Threads that run models at the same time, over all lanes; half of the cores by default. */
  readonly threadCount?: number;
  /** Where models run: `auto` (the fastest that is right), `cpu` (default), an execution provider, or the URL of a server. */
  readonly provider?: ProviderOption;
  /** Resident memory of the inference host above which it is started anew, in order. */
  readonly hostBytesMax?: number;
  /** Folder of the `thermal_zone*` files, e.g. `/sys/class/thermal`; temperatures are not looked at where there is none. */
  readonly thermalPath?: string | undefined;
  /** How soon it restricts further, and gives back. */
  readonly governorTimes?: GovernorTimes;
  /** How long a run of a model may take before the host is ended; those of the limits by default. */
  readonly runTimes?: Partial<RunTimes>;
  readonly spoolBytesMax?: number;
  /** Of telemetry, samples and downloads together. */
  readonly uplinkBytesPerSecond?: number;
  /** What packages name that are not for every device; `linux-x64` and the like by default. */
  readonly deviceClass?: string | undefined;
  /** Times between the tries of an update; those of the limits by default. */
  readonly updateTimes?: Partial<UpdaterTimes>;
  /** Where a test wants to know of each change that an update makes to the disk. */
  readonly onPersist?: PersistObserver;
  /** Environment of the inference host. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly fetch?: HttpFetch;
  readonly clock?: Clock;
  readonly random?: RandomSource;
}

export interface AgentHandle {
  readonly device: string;
  readonly boot: number;
  /** `http://127.0.0.1:…` of the local interface. */
  readonly localUrl: string;
  /** Path of its unix socket, where one was asked for. */
  readonly localSocket: string | undefined;
  /** `grpc://127.0.0.1:…`, where it was asked for. */
  readonly grpcUrl: string | undefined;
  /** Undefined between two hosts. */
  readonly hostPid: () => number | undefined;
  readonly state: () => DeviceState;
  /** Ends the run in hand, writes and sends what is left (for a moment), says offline. */
  stop(): Promise<void>;
}

/**
 * Starts the agent: identity (enrolling at the first start), boot number, spool, host, updater, local interface, uplink.
 * @throws FieldloopError `enrolment_refused`, `unavailable` (first start without the server), `invalid_argument`,
 * `source_unknown`, `conflict` (another agent has the folder), `storage_failed`
 */
export async function startAgent(options: AgentOptions): Promise<AgentHandle> {
  const sources = typeof options.source === "string" ? [options.source] : options.source;
  const lanes = parseLaneSpecs(sources);
  await ensureDirectory(options.directory);
  const reserve = new DiskReserve(options.directory, options.log);
  await reserve.makeRoom();
  const unlock = await lockState(options.directory);
  let firstHost: HostProcess | undefined;
  try {
    if (await endLeftoverHost(options.directory)) {
      options.log.warn("a host of an earlier start was still running and was ended");
    }
    const workingDirectory = join(options.directory, "empty");
    await mkdir(workingDirectory, { recursive: true, mode: 0o500 });
    const host = { workingDirectory, env: options.env, log: options.log };
    // The two processes take equally long to load: the host begins before control's own modules do.
    firstHost = new HostProcess({ ...host, stdin: stdinOf(lanes) });
    const { runDaemon } = await import("./run-daemon.js");
    const end = (): Promise<void> => {
      reserve.stop();
      return unlock();
    };
    const daemon = await runDaemon({ options, lanes, host, firstHost, unlock: end });
    reserve.keep();
    return daemon;
  } catch (error) {
    firstHost?.kill();
    await unlock();
    throw error;
  }
}
