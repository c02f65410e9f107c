import { FieldloopError } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../../clock.js";
import type { PackageToRun } from "../../ipc.js";
import type { ShadowMessage, ShadowOpened, ShadowOpenRequest } from "../../ipc-shadow.js";
import { AGENT_LIMITS } from "../../limits.js";
import { readFrameMark } from "../frame-mark.js";
import { HostProcess, type HostProcessOptions } from "../host-process.js";
import type { Supervisor } from "../supervisor.js";

export interface ShadowSessionOptions {
  readonly lane: string;
  readonly deployment: string;
  readonly candidate: PackageToRun;
  readonly against: PackageToRun;
  readonly isCutBySource: boolean;
  readonly cpuShareMax: number;
  /** Of the processes that it starts. */
  readonly host: HostProcessOptions;
  /** Of the host that runs the lane. */
  readonly supervisor: Pick<Supervisor, "request">;
  readonly frameMarkPath: string;
  /** Resident memory of the candidate's process, at most. */
  readonly bytesMax: number;
  readonly clock: Clock;
  readonly log: Logger;
}

type Beat = Extract<ShadowMessage, { kind: "shadow_beat" }>;

/**
 * One process of the candidate beside one host. Control watches it and is the only one that kills it; the host that runs the lane knows nothing of
 * it but its end of a socket, which is closed when the process ends. It has a lower priority, and is the first to go where memory runs out.
 */
export class ShadowSession {
  readonly opened: ShadowOpened;
  readonly #options: ShadowSessionOptions;
  readonly #process: HostProcess;
  readonly #watched: Watched;

  private constructor(
    options: ShadowSessionOptions,
    process: HostProcess,
    watched: Watched,
    opened: ShadowOpened,
  ) {
    this.#options = options;
    this.#process = process;
    this.#watched = watched;
    this.opened = opened;
  }

  /**
   * Starts the process and has it open the package; shown frames it is with {@link begin}.
   * @throws FieldloopError `shadow_failed` where it does not open, `cancelled`
   */
  static async open(options: ShadowSessionOptions, signal: AbortSignal): Promise<ShadowSession> {
    const { candidate, against, frameMarkPath, isCutBySource, host, clock, log } = options;
    const watched = new Watched(clock);
    const process = new HostProcess({ ...host, hasSocket: true });
    process.onMessage = (message) => {
      if (message.kind === "shadow_beat") watched.heard(message);
    };
    process.yieldToOthers();
    process.makeExpendable(log);
    void process.ended.then((reason) => watched.ended(reason));
    // Until it is handed on: a process that ends takes its end with it.
    process.socket?.on("error", () => undefined);
    const request: ShadowOpenRequest = {
      kind: "shadow_open",
      package: candidate,
      activeDirectory: against.directory,
      isCutBySource,
      frameMarkPath,
    };
    try {
      const opened = await process.request(request, AGENT_LIMITS.activateTimeoutMs, signal);
      return new ShadowSession(options, process, watched, opened);
    } catch (cause) {
      process.kill();
      if (signal.aborted) throw new FieldloopError("cancelled", "Shadow: nobody wants it any more");
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new FieldloopError("shadow_failed", `Shadow: the candidate does not open: ${reason}`, { cause });
    }
  }

  /**
   * From now on the host shows it frames.
   * @throws FieldloopError of {@link Supervisor.request} where there is no host, or it ended
   */
  async begin(signal: AbortSignal): Promise<void> {
    const { lane, deployment, cpuShareMax, against, supervisor } = this.#options;
    const { origin, isSequential } = this.opened;
    const { version } = origin;
    await supervisor.request(
      {
        kind: "shadow_begin",
        ...{ lane, deployment, version, isSequential, cpuShareMax, against: against.packageSha256 },
      },
      AGENT_LIMITS.requestTimeoutMs,
      signal,
      this.#process.socket,
    );
  }

  /** Why it cannot go on; undefined while it can. A process that hangs is ended. */
  trouble(): FieldloopError | undefined {
    const { frameMarkPath, bytesMax } = this.#options;
    const { end, beat, silentMs } = this.#watched;
    const [frame] = readFrameMark(frameMarkPath);
    const onFrame = frame === undefined ? "" : ` on frame ${frame.slice(0, 16)}`;
    if (end !== undefined) return failed(`the candidate's process ended${onFrame}: ${end}`);
    if (isStuck(beat, silentMs)) {
      this.#process.kill();
      return failed(`the candidate did not come to an end${onFrame}`);
    }
    if (beat.residentBytes > bytesMax) {
      this.#process.kill();
      return failed(`the candidate's process held ${Math.round(beat.residentBytes / 2 ** 20)} MB`);
    }
    return undefined;
  }

  /** The host, where it is still the one that was told to begin, shows nothing more and has told what it counted; then the process ends. */
  async end(isHostThere: boolean): Promise<void> {
    if (isHostThere) await this.#endShowing();
    this.#process.send({ kind: "stop" });
    const timer = setTimeout(() => this.#process.kill(), AGENT_LIMITS.shadowStopTimeoutMs);
    await this.#process.ended;
    clearTimeout(timer);
  }

  async #endShowing(): Promise<void> {
    const { supervisor, lane, log } = this.#options;
    try {
      await supervisor.request({ kind: "shadow_end", lane }, AGENT_LIMITS.requestTimeoutMs);
    } catch (error) {
      // A host that is gone shows nothing to anybody.
      log.debug({ error, lane }, "the host could not be told that the shadow is over");
    }
  }
}

/** What is known of the process. */
class Watched {
  readonly #clock: Clock;
  beat: Beat = { kind: "shadow_beat", runningMs: 0, runningCpuMs: 0, expectedMs: 0, residentBytes: 0 };
  /** How it ended. */
  end: string | undefined;
  #at: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#at = clock.monotonic();
  }

  get silentMs(): number {
    return this.#clock.monotonic() - this.#at;
  }

  heard(beat: Beat): void {
    this.beat = beat;
    this.#at = this.#clock.monotonic();
  }

  ended(reason: string): void {
    this.end = reason;
  }
}

/**
 * On a busy device the candidate may wait long for its turn, and that is no fault of it: what a run has done counts, not how long ago it began.
 * Only one that does nothing at all for a long while, as where it waits for itself, is given up by the clock.
 */
export function isStuck(
  { runningMs, runningCpuMs, expectedMs }: Omit<Beat, "kind">,
  silentMs: number,
): boolean {
  const { runTimeoutFirstMs, runTimeoutMinMs, runTimeoutFactor, shadowStillMs } = AGENT_LIMITS;
  const usualMs = runTimeoutFactor * expectedMs;
  if (runningCpuMs > (expectedMs === 0 ? runTimeoutFirstMs : Math.max(runTimeoutMinMs, usualMs))) return true;
  const stillMs = Math.max(shadowStillMs, usualMs);
  return silentMs > stillMs || (runningMs > 0 && runningMs + silentMs > stillMs);
}

function failed(what: string): FieldloopError {
  return new FieldloopError("shadow_failed", `Shadow: ${what}`);
}
