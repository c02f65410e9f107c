import type { Socket } from "node:net";
import { FieldloopError } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../clock.js";
import type {
  ControlMessage,
  ControlRequest,
  ControlResponses,
  Heartbeat,
  HostMessage,
  LaneActivation,
  StartMessage,
} from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { Absence } from "./absence.js";
import { readFrameMark } from "./frame-mark.js";
import { HostProcess, type HostProcessOptions } from "./host-process.js";
import { noteHost } from "./process-lock.js";

export interface HostCrash {
  readonly reason: string;
  /** False where it never got as far as answering. */
  readonly wasReady: boolean;
  /** Killed by the watchdog because it, or the run of a lane, no longer came to an end. */
  readonly unresponsive: boolean;
  /** Inferences for programs on this machine that were asked for and not answered. */
  readonly inferring: number;
  /** One of those took too long. */
  readonly stuckInference: boolean;
  /** The lane whose run took too long, where it was that. */
  readonly stuckLane: string | undefined;
  /** The frames that were running, by lane. */
  readonly frames: readonly LaneFrames[];
}

export interface LaneFrames {
  readonly lane: string;
  readonly hashes: readonly string[];
}

/** How long a run may take before it counts as one that never ends, milliseconds. */
export interface RunTimes {
  /** Of a model of which it is not known yet how long it takes. */
  readonly runTimeoutFirstMs: number;
  /** Of one that is usually quicker; otherwise a multiple of what it usually takes. */
  readonly runTimeoutMinMs: number;
}

export interface SupervisorOptions {
  readonly directory: string;
  readonly workingDirectory: string;
  /** Where each lane notes its frames in hand. */
  readonly frameMarks: ReadonlyMap<string, string>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin?: HostProcessOptions["stdin"];
  /** The first host, where it was started before; the others are started here. */
  readonly first?: HostProcess | undefined;
  /** Those of the limits by default. */
  readonly runTimes?: Partial<RunTimes> | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** What the next host has to run, asked anew at each start. */
  readonly startMessage: () => StartMessage;
  readonly onReady: (lanes: readonly LaneActivation[]) => void;
  readonly onMessage: (message: HostMessage) => void;
  readonly onCrash: (crash: HostCrash) => void;
  /** It ended as it was told to; the next one begins behind it. */
  readonly onEnd: () => void;
}

/** Keeps one inference host running: starts, watches, kills, restarts with back-off, stops by message. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  #host: HostProcess | undefined;
  #ready = false;
  #readyWaiters: (() => void)[] = [];
  #stopping = false;
  #wantedEnd = false;
  /** The host that is there was told to end. */
  #isEnding = false;
  #unresponsive = false;
  #stuckLane: string | undefined;
  #stuckInference = false;
  #restarts = 0;
  #failuresInRow = 0;
  #startedAt = 0;
  #heartbeatAt = 0;
  readonly #absence = new Absence(AGENT_LIMITS.heartbeatIntervalMs, AGENT_LIMITS.absenceMs);
  #heartbeat: Heartbeat | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  #watchTimer: NodeJS.Timeout | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  get restarts(): number {
    return this.#restarts;
  }
  get heartbeat(): Heartbeat | undefined {
    return this.#heartbeat;
  }
  get pid(): number | undefined {
    return this.#host?.pid;
  }
  get ready(): boolean {
    return this.#ready;
  }

  start(): void {
    this.#watchTimer = setInterval(() => this.#watch(), AGENT_LIMITS.heartbeatIntervalMs);
    this.#begin(this.#options.first ?? this.#spawn());
  }

  /** Lets the run in hand end, then the process; kills it where that takes too long. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
    clearInterval(this.#watchTimer);
    this.#wakeReadyWaiters();
    await this.#end();
  }

  /** Ends the host; the next one starts at once, and is asked what is asked from now on. */
  async restart(): Promise<void> {
    // One that has ended by itself is started again anyway, and its end is told.
    if (!this.#host) return;
    this.#wantedEnd = true;
    this.#ready = false;
    await this.#end();
  }

  send(message: ControlMessage): void {
    this.#host?.send(message);
  }

  /**
   * Waits for a host that is ready, then asks it. @throws FieldloopError its own, `host_crashed`, `timed_out`, `cancelled` once `signal`
   * aborts, `unavailable`
   */
  async request<Kind extends ControlRequest["kind"]>(
    request: Extract<ControlRequest, { kind: Kind }>,
    timeoutMs: number = AGENT_LIMITS.requestTimeoutMs,
    signal?: AbortSignal,
    handle?: Socket,
  ): Promise<ControlResponses[Kind]> {
    if (!this.#ready && !this.#stopping) await this.#untilReady(timeoutMs, signal);
    const host = this.#host;
    if (signal?.aborted === true) {
      throw new FieldloopError("cancelled", `Ask host to ${request.kind}: nobody waits for the answer`);
    }
    if (!host || !this.#ready || this.#stopping) {
      throw new FieldloopError("unavailable", `Ask host to ${request.kind}: it is not running`);
    }
    return host.request(request, timeoutMs, signal, handle);
  }

  async #untilReady(timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        this.#readyWaiters = this.#readyWaiters.filter((waiter) => waiter !== done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      signal?.addEventListener("abort", done, { once: true });
      this.#readyWaiters.push(done);
    });
  }

  #wakeReadyWaiters(): void {
    const waiters = this.#readyWaiters;
    this.#readyWaiters = [];
    for (const wake of waiters) wake();
  }

  #spawn(): HostProcess {
    const { workingDirectory, env, stdin, log } = this.#options;
    return new HostProcess({ workingDirectory, env, stdin, log });
  }

  #begin(host: HostProcess): void {
    const { log, clock } = this.#options;
    host.onMessage = (message) => this.#received(host, message);
    this.#host = host;
    this.#ready = false;
    this.#isEnding = false;
    this.#unresponsive = false;
    this.#stuckLane = undefined;
    this.#stuckInference = false;
    this.#heartbeat = undefined;
    this.#startedAt = clock.monotonic();
    this.#heartbeatAt = this.#startedAt;
    if (host.pid !== undefined) {
      noteHost(this.#options.directory, host.pid).catch((error: unknown) => {
        log.warn({ error }, "the host's process id could not be noted");
      });
    }
    void host.ended.then((reason) => this.#ended(host, reason));
    host.send(this.#options.startMessage());
  }

  #received(host: HostProcess, message: HostMessage): void {
    if (host !== this.#host) return;
    if (message.kind === "ready") {
      // It is not, where it was told to end before it came to that.
      if (this.#isEnding) return;
      this.#ready = true;
      this.#heartbeatAt = this.#options.clock.monotonic();
      this.#options.onReady(message.lanes);
      this.#wakeReadyWaiters();
      return;
    }
    if (message.kind === "heartbeat") {
      this.#heartbeat = message;
      this.#heartbeatAt = this.#options.clock.monotonic();
    }
    this.#options.onMessage(message);
  }

  #watch(): void {
    const now = this.#options.clock.monotonic();
    const awayMs = this.#absence.note(now);
    this.#heartbeatAt += awayMs;
    this.#startedAt += awayMs;
    const host = this.#host;
    if (!host || this.#isEnding || this.#unresponsive || this.#absence.isGrace(now)) return;
    const silentMs = now - this.#heartbeatAt;
    const silenceMaxMs = this.#ready ? AGENT_LIMITS.heartbeatTimeoutMs : AGENT_LIMITS.hostStartTimeoutMs;
    const stuck = this.#heartbeat?.lanes.find(({ runningMs, expectedMs }) => {
      const { runTimeoutFirstMs, runTimeoutMinMs } = { ...AGENT_LIMITS, ...this.#options.runTimes };
      const { runTimeoutFactor } = AGENT_LIMITS;
      const runMaxMs =
        expectedMs === 0 ? runTimeoutFirstMs : Math.max(runTimeoutMinMs, runTimeoutFactor * expectedMs);
      return runningMs > 0 && runningMs + silentMs > runMaxMs;
    });
    const localRunningMs = this.#heartbeat?.localRunningMs ?? 0;
    const stuckInference = localRunningMs > 0 && localRunningMs + silentMs > AGENT_LIMITS.localRunTimeoutMs;
    // A host that tells that it lives and never gets ready waits for a load that does not come to an end.
    const stuckStart = !this.#ready && now - this.#startedAt > AGENT_LIMITS.activateTimeoutMs;
    if (silentMs <= silenceMaxMs && !stuck && !stuckInference && !stuckStart) return;
    this.#stuckLane = stuck?.name;
    this.#stuckInference = stuckInference && !stuck;
    this.#unresponsive = true;
    this.#options.log.warn(
      { silentMs, lane: stuck?.name },
      "the inference host does not answer and is killed",
    );
    host.kill();
  }

  #ended(host: HostProcess, reason: string): void {
    if (host !== this.#host) return;
    const wasReady = this.#ready;
    this.#host = undefined;
    this.#ready = false;
    if (this.#stopping) return;
    const now = this.#options.clock.monotonic();
    if (now - this.#startedAt > AGENT_LIMITS.hostHealthyMs) this.#failuresInRow = 0;
    this.#restarts++;
    if (this.#wantedEnd) {
      this.#wantedEnd = false;
      this.#options.onEnd();
      this.#begin(this.#spawn());
      return;
    }
    this.#options.onCrash({
      reason,
      wasReady,
      unresponsive: this.#unresponsive,
      stuckLane: this.#stuckLane,
      inferring: host.inferringAtEnd,
      stuckInference: this.#stuckInference,
      frames: this.#framesInHand(),
    });
    const waitMs = Math.min(
      AGENT_LIMITS.hostRestartMaxMs,
      AGENT_LIMITS.hostRestartMinMs * 2 ** this.#failuresInRow,
    );
    this.#failuresInRow = Math.min(this.#failuresInRow + 1, 16);
    this.#restartTimer = setTimeout(() => this.#begin(this.#spawn()), waitMs);
  }

  #framesInHand(): LaneFrames[] {
    return [...this.#options.frameMarks]
      .map(([lane, path]) => ({ lane, hashes: readFrameMark(path) }))
      .filter(({ hashes }) => hashes.length > 0);
  }

  async #end(): Promise<void> {
    const host = this.#host;
    if (!host) return;
    if (!this.#isEnding) host.send({ kind: "stop" });
    this.#isEnding = true;
    const timer = setTimeout(() => host.kill(), AGENT_LIMITS.hostStopTimeoutMs);
    await host.ended;
    clearTimeout(timer);
  }
}
