import {
  encodeMessage,
  toFieldloopError,
  type Desired,
  type DeviceState,
  type EventData,
} from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../clock.js";
import type { Activation, HostMessage, PackageToRun, SelfTest, StartMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import type { SourceSpec } from "../source-spec.js";
import { FrameCounters } from "./counters.js";
import type { FeedbackGatherer } from "./feedback.js";
import { type HostProcessOptions, inScratchHost } from "./host-process.js";
import type { PackageStore } from "./package-store.js";
import { PredictionBatcher } from "./prediction-batcher.js";
import type { Quarantine } from "./quarantine.js";
import { appendSample } from "./samples.js";
import type { Spool } from "./spool/spool.js";
import { type HostCrash, Supervisor } from "./supervisor.js";
import type { Updater } from "./updater.js";
import type { Warnings } from "./warnings.js";

export interface HostLinkOptions {
  readonly directory: string;
  readonly frameMarkPath: string;
  readonly device: string;
  readonly boot: number;
  readonly source: SourceSpec;
  readonly host: HostProcessOptions;
  readonly threadCount: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly spool: Spool;
  readonly warnings: Warnings;
  readonly feedback: FeedbackGatherer;
  readonly quarantine: Quarantine;
  readonly packages: PackageStore;
  readonly desired: () => Desired | undefined;
  readonly updater: () => Updater;
  readonly emit: (event: EventData) => void;
  readonly onChange: () => void;
}

const DEFAULT_SAMPLING: StartMessage["sampling"] = {
  bytesPerHour: 0,
  randomShare: 0,
  worthMin: 1,
  worthPerMinute: 0,
};
const DEFAULT_PROFILE_SECONDS = 60;
const DEFAULT_PREDICTIONS_SECONDS = 2;
/** What a profile is worth when space runs out. */
const PROFILE_WORTH = 0.7;

/** Control's end of the inference host: what it has to run, what it says, and what happens when it ends. */
export class HostLink {
  readonly supervisor: Supervisor;
  readonly batcher: PredictionBatcher;
  readonly frames = new FrameCounters();
  readonly #options: HostLinkOptions;
  #running: DeviceState["running"] = null;
  /** A host was asked to change its model and has not answered yet. */
  #activating = false;
  #samplesTaken = 0;
  #upSince = 0;
  #predictionsTimer: NodeJS.Timeout | undefined;

  constructor(options: HostLinkOptions) {
    this.#options = options;
    this.batcher = new PredictionBatcher(options.spool, options.boot);
    const { directory, frameMarkPath, host, clock, log } = options;
    this.supervisor = new Supervisor({
      directory,
      frameMarkPath,
      ...host,
      clock,
      log,
      startMessage: () => this.#startMessage(),
      onReady: (activation) => this.#ready(activation),
      onMessage: (message) => this.#received(message),
      onCrash: (crash) => void this.#crashed(crash),
    });
  }

  /** What answers right now; null between two hosts and before the first version. */
  get running(): DeviceState["running"] {
    return this.#running;
  }
  get samplesTaken(): number {
    return this.#samplesTaken;
  }
  /** Milliseconds since the host was last started; 0 while it is not ready. */
  get upMs(): number {
    return this.supervisor.ready ? this.#options.clock.monotonic() - this.#upSince : 0;
  }

  start(): void {
    this.supervisor.start();
    this.applyPolicy();
  }

  /** Ends the run in hand; every prediction is in the spool's memory then. */
  async stop(): Promise<void> {
    clearInterval(this.#predictionsTimer);
    await this.supervisor.stop();
    this.batcher.cut();
  }

  /** The desired state changed: sampling and intervals follow it. */
  applyPolicy(): void {
    const desired = this.#options.desired();
    if (desired) {
      const { sampling, profileIntervalSeconds } = desired;
      this.supervisor.send({ kind: "policy", sampling, profileIntervalSeconds });
    }
    clearInterval(this.#predictionsTimer);
    const seconds = desired?.predictionsIntervalSeconds ?? DEFAULT_PREDICTIONS_SECONDS;
    this.#predictionsTimer = setInterval(() => this.batcher.cut(), seconds * 1000);
  }

  /** Golden cases in a process of their own. @throws FieldloopError */
  selfTest(candidate: PackageToRun, signal: AbortSignal): Promise<SelfTest> {
    return inScratchHost(
      this.#options.host,
      { kind: "self_test", package: candidate, threadCount: 1 },
      AGENT_LIMITS.selfTestTimeoutMs,
      signal,
    );
  }

  /** Loads beside the running session and swaps; undefined unloads. @throws FieldloopError with the old one still running */
  async activate(target: PackageToRun | undefined): Promise<Activation | undefined> {
    if (!target) {
      await this.supervisor.request({ kind: "deactivate" }, AGENT_LIMITS.activateTimeoutMs);
      this.#running = null;
      this.#options.onChange();
      return undefined;
    }
    this.#activating = true;
    try {
      const request = { kind: "activate", package: target } as const;
      const activation = await this.supervisor.request(request, AGENT_LIMITS.activateTimeoutMs);
      this.#setRunning(activation);
      this.#activating = false;
      return activation;
    } catch (error) {
      // A dead host is told about in #crashed, which wants to know.
      if (toFieldloopError(error).code !== "host_crashed") this.#activating = false;
      throw error;
    }
  }

  async restart(): Promise<void> {
    this.frames.hostEnded();
    await this.supervisor.restart();
  }

  #startMessage(): StartMessage {
    const { device, boot, source, threadCount, quarantine, frameMarkPath } = this.#options;
    const desired = this.#options.desired();
    return {
      kind: "start",
      device,
      boot,
      nextN: this.batcher.nextN,
      source,
      sampling: desired?.sampling ?? DEFAULT_SAMPLING,
      profileIntervalSeconds: desired?.profileIntervalSeconds ?? DEFAULT_PROFILE_SECONDS,
      package: this.#options.updater().toRun,
      quarantined: quarantine.frames,
      frameMarkPath,
      threadCount,
    };
  }

  #ready(activation: Activation | undefined): void {
    this.#upSince = this.#options.clock.monotonic();
    if (activation) this.#setRunning(activation);
    else if (this.#options.updater().toRun) void this.#withoutModel();
    this.#options.onChange();
  }

  /** The host is up, but the version that it should run did not load. */
  async #withoutModel(): Promise<void> {
    const { log, packages } = this.#options;
    const updater = this.#options.updater();
    if (updater.deployment?.state === "probation") {
      for (let crash = 0; crash < AGENT_LIMITS.probationHostCrashesMax; crash++) updater.noteHostCrash();
      return;
    }
    const previous = updater.previous;
    if (!previous) return;
    log.warn("the active version does not load: running the one before");
    try {
      await this.activate(packages.toRun(previous.packageSha256));
    } catch (error) {
      log.error({ code: toFieldloopError(error).code }, "the version before does not load either");
    }
  }

  #setRunning(activation: Activation): void {
    const { clock, log, warnings } = this.#options;
    const { model, version, packageSha256 } = activation.origin;
    const { variant, executionProvider } = activation;
    this.#running = { model, version, packageSha256, variant, executionProvider, since: clock.now() };
    log.info({ package: `${model}@${version}`, variant, loadMs: activation.loadMs }, "running");
    warnings.clear("model_load_failed");
    this.#options.onChange();
  }

  #received(message: HostMessage): void {
    const { spool, device, boot, feedback, log, warnings } = this.#options;
    switch (message.kind) {
      case "heartbeat": {
        const failed = this.frames.beat(message);
        if (failed > 0) this.#options.updater().noteFramesFailed(failed);
        return;
      }
      case "predictions":
        return this.#addPredictions(message);
      case "profile": {
        const { kind: _, ...profile } = message;
        spool.append("profile", { worth: PROFILE_WORTH, protected: false }, (seq) =>
          encodeMessage("profile", { boot, seq, prev: 0, ...profile }),
        );
        return;
      }
      case "sample":
        this.#samplesTaken++;
        appendSample(spool, device, boot, message.metadata, message.payload);
        return;
      case "feedback":
        feedback.add(boot, message.items).catch((error: unknown) => {
          log.warn({ code: toFieldloopError(error).code }, "feedback of the simulator was not taken");
        });
        return;
      case "warning":
        if (message.active) warnings.raise(message.failure.code, message.failure.message);
        else warnings.clear(message.failure.code);
        return;
      case "ready":
      case "response":
      case "refused":
      case "stopped":
        return;
    }
  }

  #addPredictions(message: Extract<HostMessage, { kind: "predictions" }>): void {
    try {
      this.batcher.add(message.origin, message.firstN, message.rows);
      this.#options.updater().notePredictions(message.origin.packageSha256, message.rows.length);
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#options.warnings.raise(coded.code, coded.message, "error");
      void this.restart();
    }
  }

  async #crashed(crash: HostCrash): Promise<void> {
    const { log, emit, warnings, quarantine } = this.#options;
    const { reason, unresponsive, frameSha256 } = crash;
    const running = this.#running;
    const activating = this.#activating;
    this.#activating = false;
    this.#running = null;
    this.frames.hostEnded();
    this.#options.updater().noteHostCrash();
    log.warn({ reason, unresponsive, frame: frameSha256?.slice(0, 16) }, "inference host ended");
    emit({
      type: "crash",
      process: "host",
      reason: unresponsive ? `unresponsive, killed (${reason})` : reason,
      // Between two versions nobody can say which of them had the frame.
      ...(running && !activating ? { model: running.model, version: running.version } : {}),
      ...(frameSha256 ? { frameSha256 } : {}),
    });
    const code = unresponsive ? "host_unresponsive" : "host_crashed";
    warnings.raise(code, `The inference host ended: ${reason}`);
    if (frameSha256 === undefined) return;
    try {
      if (!(await quarantine.judge(frameSha256, reason, unresponsive))) return;
      const short = frameSha256.slice(0, 16);
      warnings.raise("frame_quarantined", `Frame ${short} killed the host and is not run again`);
    } catch (error) {
      warnings.raise("storage_failed", toFieldloopError(error).message, "error");
    }
  }
}
