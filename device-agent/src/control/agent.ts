import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import {
  encodeMessage,
  FieldloopError,
  formatPredictionId,
  toFieldloopError,
  type Command,
  type Desired,
  type DeviceState,
  type EventData,
  type Facts,
} from "@fieldloop/protocol";
import type { Logger } from "pino";
import { type Clock, type RandomSource, systemClock } from "../clock.js";
import type { Activation, HostMessage, PackageToRun, SelfTest, StartMessage } from "../ipc.js";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import { parseSourceSpec, sourceName, type SourceSpec } from "../source-spec.js";
import { Commands } from "./commands.js";
import { FrameCounters } from "./counters.js";
import { DesiredStore } from "./desired-store.js";
import { deviceFacts } from "./facts.js";
import { FeedbackGatherer, type FeedbackItem } from "./feedback.js";
import { ensureDirectory } from "./files.js";
import { type HostProcessOptions, inScratchHost } from "./host-process.js";
import { enrol, type Identity, loadIdentity, nextBoot, raiseBoot } from "./identity.js";
import { LocalApi, unknownPrediction } from "./local-api.js";
import { createMetrics } from "./metrics.js";
import { PackageStore } from "./package-store.js";
import { PredictionBatcher } from "./prediction-batcher.js";
import { endLeftoverHost, lockState } from "./process-lock.js";
import { Quarantine } from "./quarantine.js";
import { appendSample } from "./samples.js";
import { Sender } from "./sender.js";
import { Spool } from "./spool/spool.js";
import { type HostCrash, Supervisor } from "./supervisor.js";
import { Updater } from "./updater.js";
import { Uplink } from "./uplink.js";
import { Warnings } from "./warnings.js";

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
  /** See `parseSourceSpec`. */
  readonly source: string;
  /** Port of the local interface on loopback; 0 for any free one. */
  readonly port?: number;
  /** Threads inside one operator of the model. */
  readonly threadCount?: number;
  readonly spoolBytesMax?: number;
  readonly uplinkBytesPerSecond?: number;
  /** Environment of the inference host. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly fetch?: typeof fetch;
  readonly clock?: Clock;
  readonly random?: RandomSource;
}

export interface AgentHandle {
  readonly device: string;
  readonly boot: number;
  /** `http://127.0.0.1:…` of the local interface. */
  readonly localUrl: string;
  readonly hostPid: () => number | undefined;
  readonly state: () => DeviceState;
  /** Ends the run in hand, writes and sends what is left (for a moment), says offline. */
  stop(): Promise<void>;
}

const DEFAULT_SAMPLING: StartMessage["sampling"] = {
  bytesPerHour: 0,
  randomShare: 0,
  worthMin: 1,
  worthPerMinute: 0,
};
const DEFAULT_PREDICTIONS_SECONDS = 2;
const DEFAULT_PROFILE_SECONDS = 60;
/** How long a stop waits for the server to acknowledge what is left; the rest waits in the spool. */
const DRAIN_MS = 3_000;
const TICK_MS = 1_000;

/**
 * Starts the agent: identity (enrolling at the first start), boot number, spool, host, updater, local interface, uplink.
 * @throws FieldloopError `enrolment_refused`, `unavailable` (first start without the server), `invalid_argument`,
 * `source_unknown`, `conflict` (another agent has the folder), `storage_failed`
 */
export async function startAgent(options: AgentOptions): Promise<AgentHandle> {
  const source = parseSourceSpec(options.source);
  await ensureDirectory(options.directory);
  const unlock = await lockState(options.directory);
  try {
    if (await endLeftoverHost(options.directory)) options.log.warn("a host of an earlier start was still running and was ended");
    const workingDirectory = join(options.directory, "empty");
    await mkdir(workingDirectory, { recursive: true, mode: 0o500 });
    const host = { workingDirectory, env: options.env, log: options.log };
    const corrupt: string[] = [];
    const facts = await deviceFacts(options.directory, host);
    const identity = await identify(options, facts, (message) => corrupt.push(message));
    const boot = await nextBoot(options.directory, (message) => corrupt.push(message));
    const agent = new Agent({ options, source, identity, facts, boot, host, corrupt, unlock });
    await agent.start();
    return agent;
  } catch (error) {
    await unlock();
    throw error;
  }
}

async function identify(
  options: AgentOptions,
  facts: Facts,
  onCorrupt: (message: string) => void,
): Promise<Identity> {
  const known = await loadIdentity(options.directory, onCorrupt);
  if (known) return known;
  if (options.server === undefined || options.token === undefined) {
    throw new FieldloopError("invalid_argument", "Start agent: the first start wants a server and an enrolment token");
  }
  return enrol(options.directory, {
    server: options.server,
    token: options.token,
    ...(options.device === undefined ? {} : { device: options.device }),
    tags: options.tags ?? {},
    facts,
    fetch: options.fetch ?? fetch,
  });
}

interface AgentParts {
  readonly options: AgentOptions;
  readonly source: SourceSpec;
  readonly identity: Identity;
  readonly facts: Facts;
  readonly boot: number;
  readonly host: HostProcessOptions;
  /** Files that did not parse and were kept aside. */
  readonly corrupt: readonly string[];
  readonly unlock: () => Promise<void>;
}

class Agent implements AgentHandle {
  readonly device: string;
  readonly boot: number;
  readonly #parts: AgentParts;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #random: RandomSource;
  readonly #warnings: Warnings;
  readonly #frames = new FrameCounters();
  readonly #desired: DesiredStore;
  readonly #packages: PackageStore;
  readonly #threadCount: number;
  #spool!: Spool;
  #batcher!: PredictionBatcher;
  #feedback!: FeedbackGatherer;
  #quarantine!: Quarantine;
  #updater!: Updater;
  #supervisor!: Supervisor;
  #sender!: Sender;
  #uplink!: Uplink;
  #localApi!: LocalApi;
  #running: DeviceState["running"] = null;
  #samplesTaken = 0;
  #hostUpSince = 0;
  #predictionsTimer: NodeJS.Timeout | undefined;
  #tickTimer: NodeJS.Timeout | undefined;
  #stopping: Promise<void> | undefined;

  constructor(parts: AgentParts) {
    const { options, identity, boot } = parts;
    this.#parts = parts;
    this.device = identity.device;
    this.boot = boot;
    this.#log = options.log;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#threadCount = options.threadCount ?? Math.max(1, Math.floor(parts.facts.cpuCount / 2));
    this.#warnings = new Warnings(this.#clock, (event) => {
      this.#emit(event);
      this.#changed();
    });
    this.#desired = new DesiredStore(options.directory, identity.device, identity.fleetKeys);
    this.#packages = new PackageStore(options.directory);
  }

  get localUrl(): string {
    return this.#localApi.url;
  }
  hostPid = (): number | undefined => this.#supervisor.pid;

  async start(): Promise<void> {
    const { options, corrupt } = this.#parts;
    const onCorrupt = (message: string): void => this.#warnings.raise("storage_failed", message);
    this.#spool = await Spool.open({
      directory: join(options.directory, "spool"),
      boot: this.boot,
      bytesMax: options.spoolBytesMax ?? AGENT_LIMITS.spoolBytesMaxDefault,
      onDurable: () => this.#sender.pump(),
      onEvicted: (stream, records, bytes) => this.#emit({ type: "eviction", stream, records, bytes }),
      onStorage: (error) => this.#storage(error),
    });
    this.#createParts(onCorrupt);
    this.#quarantine = await Quarantine.load(options.directory, onCorrupt);
    await this.#packages.open();
    await this.#updater.load();
    for (const message of corrupt) onCorrupt(message);
    if (this.#spool.cutBytes > 0) {
      this.#warnings.raise("spool_corrupt", `Open spool: ${this.#spool.cutBytes} bytes behind the last good checksum were cut`, "info");
    }
    await this.#loadDesired();
    await this.#localApi.start();
    this.#supervisor.start();
    this.#uplink.start();
    await this.#updater.resume();
    if (this.#desired.current) await this.#follow(this.#desired.current);
    this.#setPredictionsTimer();
    this.#tickTimer = setInterval(() => this.#tick(), TICK_MS);
  }

  #createParts(onCorrupt: (message: string) => void): void {
    const { options, identity, host } = this.#parts;
    const { log } = options;
    const clock = this.#clock;
    const random = this.#random;
    this.#batcher = new PredictionBatcher(this.#spool, this.boot);
    this.#feedback = new FeedbackGatherer(this.#spool, (event) => this.#emit(event));
    this.#sender = new Sender({
      device: this.device,
      spool: this.#spool,
      clock,
      bytesPerSecond: options.uplinkBytesPerSecond ?? AGENT_LIMITS.uplinkBytesPerSecondDefault,
      onError: (error) => this.#warnings.raise(error.code, error.message),
    });
    this.#updater = new Updater({
      directory: options.directory,
      server: identity.server,
      credential: identity.credential,
      fleetKeys: identity.fleetKeys,
      packages: this.#packages,
      fetch: options.fetch ?? fetch,
      clock,
      random,
      log,
      selfTest: (candidate, signal) => this.#selfTest(candidate, signal),
      activate: (target) => this.#activate(target),
      emit: (event) => this.#emit(event),
      onChange: () => this.#changed(),
      onCorrupt,
    });
    this.#supervisor = new Supervisor({
      directory: options.directory,
      workingDirectory: host.workingDirectory,
      frameMarkPath: this.#frameMarkPath,
      env: options.env,
      clock,
      log,
      startMessage: () => this.#startMessage(),
      onReady: (activation) => this.#hostReady(activation),
      onMessage: (message) => this.#received(message),
      onCrash: (crash) => void this.#crashed(crash),
    });
    const commands = new Commands({
      device: this.device,
      fleetKeys: identity.fleetKeys,
      clock,
      emit: (event) => this.#emit(event),
      run: (action) => this.#runCommand(action),
    });
    this.#uplink = new Uplink({
      device: this.device,
      credential: identity.credential,
      mqttUrl: identity.mqttUrl,
      boot: this.boot,
      sender: this.#sender,
      clock,
      random,
      log,
      state: () => encodeMessage("state", this.state()),
      onDesired: (envelope) => void this.#receiveDesired(envelope),
      onCommand: (envelope) => {
        commands.receive(envelope).catch((error: unknown) => this.#refused("command", error));
      },
      onAck: (acks) => {
        const newest = Math.max(0, ...acks.map((ack) => ack.boot));
        if (newest > this.boot) void this.#overtaken(newest);
        this.#sender.acknowledged(acks);
      },
      onLink: (error) => this.#link(error),
    });
    this.#localApi = new LocalApi({
      port: options.port ?? 0,
      metrics: this.#createMetrics(),
      state: () => this.state(),
      health: () => this.#health(),
      feedback: (boot, items) => this.#takeFeedback(boot, items),
      setCondition: async (condition) =>
        (await this.#supervisor.request({ kind: "set_condition", condition })).condition,
      truth: async (boot, n) =>
        boot === this.boot ? (await this.#supervisor.request({ kind: "truth", n }))?.label : undefined,
    });
  }

  get #frameMarkPath(): string {
    return join(this.#parts.options.directory, "frame.mark");
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    clearInterval(this.#predictionsTimer);
    clearInterval(this.#tickTimer);
    await this.#localApi.stop();
    await this.#updater.stop();
    await this.#supervisor.stop();
    this.#batcher.cut();
    try {
      await this.#feedback.flush();
      await this.#spool.flush();
    } catch (error) {
      this.#log.error({ code: toFieldloopError(error).code }, "what was left could not be written");
    }
    await this.#drain();
    await this.#uplink.stop();
    await this.#spool.close().catch(() => undefined);
    await this.#parts.unlock();
  }

  async #drain(): Promise<void> {
    const until = this.#clock.monotonic() + DRAIN_MS;
    while (this.#uplink.connected && !this.#sender.idle && this.#clock.monotonic() < until) {
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  // What the host says

  #startMessage(): StartMessage {
    const desired = this.#desired.current;
    return {
      kind: "start",
      device: this.device,
      boot: this.boot,
      nextN: this.#batcher.nextN,
      source: this.#parts.source,
      sampling: desired?.sampling ?? DEFAULT_SAMPLING,
      profileIntervalSeconds: desired?.profileIntervalSeconds ?? DEFAULT_PROFILE_SECONDS,
      package: this.#updater.toRun,
      quarantined: this.#quarantine.frames,
      frameMarkPath: this.#frameMarkPath,
      threadCount: this.#threadCount,
    };
  }

  #hostReady(activation: Activation | undefined): void {
    this.#hostUpSince = this.#clock.monotonic();
    if (activation) this.#setRunning(activation);
    else if (this.#updater.toRun) void this.#hostWithoutModel();
    this.#changed();
  }

  /** The host is up, but the version that it should run did not load. */
  async #hostWithoutModel(): Promise<void> {
    if (this.#updater.deployment?.state === "probation") {
      for (let crash = 0; crash < AGENT_LIMITS.probationHostCrashesMax; crash++) this.#updater.noteHostCrash();
      return;
    }
    const previous = this.#updater.previous;
    if (!previous) return;
    this.#log.warn("the active version does not load: running the one before");
    try {
      await this.#activate(this.#packages.toRun(previous.packageSha256));
    } catch (error) {
      this.#log.error({ code: toFieldloopError(error).code }, "the version before does not load either");
    }
  }

  #received(message: HostMessage): void {
    switch (message.kind) {
      case "heartbeat": {
        const failed = this.#frames.beat(message);
        if (failed > 0) this.#updater.noteFramesFailed(failed);
        return;
      }
      case "predictions":
        return this.#addPredictions(message);
      case "profile": {
        const { kind: _, ...profile } = message;
        this.#spool.append("profile", { worth: 0.7, protected: false }, (seq) =>
          encodeMessage("profile", { boot: this.boot, seq, prev: 0, ...profile }),
        );
        return;
      }
      case "sample":
        this.#samplesTaken++;
        appendSample(this.#spool, this.device, this.boot, message.metadata, message.payload);
        return;
      case "feedback":
        this.#feedback.add(this.boot, message.items).catch((error: unknown) => this.#refused("feedback", error));
        return;
      case "warning":
        if (message.active) this.#warnings.raise(message.failure.code, message.failure.message);
        else this.#warnings.clear(message.failure.code);
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
      this.#batcher.add(message.origin, message.firstN, message.rows);
      this.#updater.notePredictions(message.origin.packageSha256, message.rows.length);
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#warnings.raise(coded.code, coded.message, "error");
      void this.#supervisor.restart();
    }
  }

  async #crashed(crash: HostCrash): Promise<void> {
    this.#frames.hostEnded();
    this.#updater.noteHostCrash();
    const running = this.#running;
    this.#running = null;
    const { reason, unresponsive, frameSha256 } = crash;
    this.#log.warn({ reason, unresponsive, frame: frameSha256?.slice(0, 16) }, "inference host ended");
    this.#emit({
      type: "crash",
      process: "host",
      reason: unresponsive ? `unresponsive, killed (${reason})` : reason,
      ...(running ? { model: running.model, version: running.version } : {}),
      ...(frameSha256 ? { frameSha256 } : {}),
    });
    this.#warnings.raise(unresponsive ? "host_unresponsive" : "host_crashed", `The inference host ended: ${reason}`);
    if (frameSha256 === undefined) return;
    try {
      if (await this.#quarantine.judge(frameSha256, reason, unresponsive)) {
        this.#warnings.raise("frame_quarantined", `Frame ${frameSha256.slice(0, 16)} killed the host and is not run again`);
      }
    } catch (error) {
      this.#storage(toFieldloopError(error));
    }
  }

  // What the fleet wants

  async #loadDesired(): Promise<void> {
    try {
      await this.#desired.load();
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#warnings.raise(coded.code, coded.message, "error");
    }
  }

  async #receiveDesired(envelope: Uint8Array): Promise<void> {
    try {
      const desired = await this.#desired.accept(envelope, this.#updater.revisionFloor);
      this.#warnings.clear("desired_rollback_refused");
      this.#warnings.clear("desired_signature_invalid");
      if (desired) await this.#follow(desired);
    } catch (error) {
      this.#refused("desired", error);
    }
  }

  async #follow(desired: Desired): Promise<void> {
    const { sampling, profileIntervalSeconds } = desired;
    this.#supervisor.send({ kind: "policy", sampling, profileIntervalSeconds });
    this.#setPredictionsTimer();
    await this.#updater.follow(desired.assignments, desired.revision);
    this.#changed();
  }

  #setPredictionsTimer(): void {
    clearInterval(this.#predictionsTimer);
    const seconds = this.#desired.current?.predictionsIntervalSeconds ?? DEFAULT_PREDICTIONS_SECONDS;
    this.#predictionsTimer = setInterval(() => this.#batcher.cut(), seconds * 1000);
  }

  async #selfTest(candidate: PackageToRun, signal: AbortSignal): Promise<SelfTest> {
    return inScratchHost(
      this.#parts.host,
      { kind: "self_test", package: candidate, threadCount: 1 },
      AGENT_LIMITS.selfTestTimeoutMs,
      signal,
    );
  }

  async #activate(target: PackageToRun | undefined): Promise<Activation | undefined> {
    if (!target) {
      await this.#supervisor.request({ kind: "deactivate" }, AGENT_LIMITS.activateTimeoutMs);
      this.#running = null;
      this.#changed();
      return undefined;
    }
    const activation = await this.#supervisor.request(
      { kind: "activate", package: target },
      AGENT_LIMITS.activateTimeoutMs,
    );
    this.#setRunning(activation);
    return activation;
  }

  #setRunning(activation: Activation): void {
    const { model, version, packageSha256 } = activation.origin;
    const { variant, executionProvider } = activation;
    this.#running = { model, version, packageSha256, variant, executionProvider, since: this.#clock.now() };
    this.#log.info({ package: `${model}@${version}`, variant, loadMs: activation.loadMs }, "running");
    this.#warnings.clear("model_load_failed");
    this.#changed();
  }

  async #runCommand(action: Command["action"]): Promise<void> {
    switch (action.kind) {
      case "capture":
        await this.#supervisor.request({ kind: "capture", count: action.count });
        return;
      case "restart_host":
        this.#frames.hostEnded();
        await this.#supervisor.restart();
        return;
      case "report_state":
        this.#changed();
        return;
    }
  }

  // What other programs on this machine ask

  async #takeFeedback(boot: number, items: readonly FeedbackItem[]): Promise<void> {
    const unknown = items.find((item) => boot > this.boot || (boot === this.boot && item.n >= this.#batcher.nextN));
    if (unknown) throw unknownPrediction(formatPredictionId(boot, unknown.n));
    await this.#feedback.add(boot, items);
  }

  #health(): { healthy: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (!this.#supervisor.ready) reasons.push("the inference host is not running");
    for (const warning of this.#warnings.list()) {
      if (warning.severity === "error") reasons.push(`${warning.code}: ${warning.message}`);
    }
    return { healthy: reasons.length === 0, reasons };
  }

  #createMetrics(): ReturnType<typeof createMetrics> {
    return createMetrics({
      predictions: () => this.#batcher.nextN,
      framesDropped: () => this.#frames.dropped,
      framesFailed: () => this.#frames.failed,
      samplesTaken: () => this.#samplesTaken,
      hostRestarts: () => this.#supervisor.restarts,
      hostReady: () => this.#supervisor.ready,
      hostResidentBytes: () => this.#supervisor.heartbeat?.residentBytes ?? 0,
      runMs: () => this.#supervisor.heartbeat?.expectedMs ?? 0,
      linkUp: () => this.#uplink.connected,
      uplinkBytes: () => this.#sender.bytesSent,
      uplinkResends: () => this.#sender.resends,
      recordsEvicted: () => this.#spool.recordsEvicted,
      spoolBytes: () => this.#spool.bytes,
      spoolRecords: (stream) => this.#spool.waiting(stream),
      acknowledged: (stream) => this.#spool.acknowledged(stream),
      running: () => this.#running ?? undefined,
    });
  }

  // What is reported

  state(): DeviceState {
    const { facts, source } = this.#parts;
    return {
      time: this.#clock.now(),
      boot: this.boot,
      agentVersion: AGENT_VERSION,
      facts,
      running: this.#running,
      previous: this.#updater.previous,
      deployment: this.#updater.deployment,
      desiredRevision: this.#desired.revision,
      warnings: this.#warnings.list(),
      counters: {
        predictions: this.#batcher.nextN,
        framesDropped: this.#frames.dropped,
        framesFailed: this.#frames.failed,
        samplesTaken: this.#samplesTaken,
        recordsEvicted: this.#spool.recordsEvicted,
        hostRestarts: this.#supervisor.restarts,
      },
      spool: { records: this.#spool.records, bytes: this.#spool.bytes, bytesMax: this.#spool.bytesMax },
      source: sourceName(source),
    };
  }

  /** Appends an event to the spool. All but feedback is never evicted. */
  #emit(data: EventData): void {
    const options = { worth: 1, protected: data.type !== "feedback" };
    this.#spool.append("event", options, (seq) =>
      encodeMessage("event", { boot: this.boot, seq, prev: 0, time: this.#clock.now(), data }),
    );
  }

  #changed(): void {
    this.#uplink?.stateChanged();
  }

  #tick(): void {
    const upMs = this.#clock.monotonic() - this.#hostUpSince;
    if (!this.#supervisor.ready || upMs < AGENT_LIMITS.hostHealthyMs) return;
    for (const code of ["host_crashed", "host_unresponsive", "frame_quarantined"] as const) this.#warnings.clear(code);
  }

  #storage(error: FieldloopError | undefined): void {
    if (error) this.#warnings.raise("storage_failed", error.message, "error");
    else this.#warnings.clear("storage_failed");
  }

  #link(error: FieldloopError | undefined): void {
    if (!error) {
      this.#log.info({ device: this.device }, "connected to the fleet");
      this.#warnings.clear("unauthenticated");
      return;
    }
    this.#log.warn({ code: error.code }, error.message);
    if (error.code === "unauthenticated") this.#warnings.raise("unauthenticated", error.message, "error");
  }

  /** The server knows a newer boot of this device: a copy of its state folder, or one that was put back. */
  async #overtaken(seen: number): Promise<void> {
    this.#warnings.raise("boot_superseded", `The server saw boot ${seen} of this device, this is boot ${this.boot}`, "error");
    await raiseBoot(this.#parts.options.directory, seen).catch((error: unknown) => this.#refused("boot", error));
  }

  #refused(what: string, error: unknown): void {
    const coded = toFieldloopError(error);
    this.#log.warn({ code: coded.code, what }, coded.message);
    const isTrust = ["desired_signature_invalid", "desired_rollback_refused", "storage_failed"].includes(coded.code);
    if (isTrust) this.#warnings.raise(coded.code, coded.message);
  }
}
