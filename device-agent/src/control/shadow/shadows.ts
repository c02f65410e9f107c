import { availableParallelism } from "node:os";
import type { PackageToRun } from "../../ipc.js";
import type { ShadowMessage, ShadowTerms } from "../../ipc-shadow.js";
import type { LaneSpec } from "../../lane-spec.js";
import type { HostLinkOptions } from "../host-link-options.js";
import { shadowMarkPath } from "../lane-files.js";
import type { Supervisor } from "../supervisor.js";
import { type ActiveVersion, type ShadowOutcome, ShadowTrial, type ShadowTrialOptions } from "./trial.js";

export interface ShadowsOptions
  extends Pick<
    HostLinkOptions,
    "directory" | "host" | "threadCount" | "hostBytesMax" | "clock" | "log" | "emit"
  > {
  readonly lanes: readonly LaneSpec[];
  readonly supervisor: Pick<Supervisor, "request">;
  readonly running: (lane: string) => ActiveVersion | undefined;
  readonly times?: ShadowTrialOptions["times"];
}

/** What a deployment in shadow wants. */
export interface ShadowRequest {
  readonly deployment: string;
  readonly candidate: PackageToRun;
  readonly terms: ShadowTerms;
}

/** The candidates that stand beside active versions at the moment, one a lane. */
export class Shadows {
  readonly #options: ShadowsOptions;
  readonly #trials = new Map<string, ShadowTrial>();

  constructor(options: ShadowsOptions) {
    this.#options = options;
  }

  /** `active`: what the lane is to run; undefined before its first version. @throws FieldloopError as {@link ShadowTrial.run} */
  async run(
    lane: string,
    active: PackageToRun | undefined,
    request: ShadowRequest,
    signal: AbortSignal,
  ): Promise<ShadowOutcome> {
    const { directory, host, supervisor, hostBytesMax, threadCount, lanes, clock, log, emit } = this.#options;
    const spec = lanes.find(({ name }) => name === lane)!;
    const trial = new ShadowTrial({
      ...{ ...request, lane, active, host, supervisor, clock, log, emit },
      isCutBySource: isCutBySource(spec.source),
      frameMarkPath: shadowMarkPath(directory, lane),
      bytesMax: hostBytesMax,
      running: () => this.#options.running(lane),
      // As the host shares its threads among the lanes.
      activeThreads: Math.max(1, Math.floor(threadCount / lanes.length)),
      cores: availableParallelism(),
      ...(this.#options.times ? { times: this.#options.times } : {}),
    });
    this.#trials.set(lane, trial);
    try {
      return await trial.run(signal);
    } finally {
      if (this.#trials.get(lane) === trial) this.#trials.delete(lane);
    }
  }

  received({ lane, deployment, delta }: Extract<ShadowMessage, { kind: "shadow" }>): void {
    const trial = this.#trials.get(lane);
    if (trial?.deployment === deployment) trial.received(delta);
  }

  /** The host that showed candidates their frames is gone. */
  hostEnded(): void {
    for (const trial of this.#trials.values()) trial.hostEnded();
  }
}

/** The source was told how long its windows are, or how far apart: it will cut them so for any version. */
function isCutBySource(source: LaneSpec["source"]): boolean {
  const cut: { readonly length?: number | undefined; readonly hop?: number | undefined } =
    "rows" in source ? source.rows : "hop" in source ? source : {};
  return cut.length !== undefined || cut.hop !== undefined;
}
