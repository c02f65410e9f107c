import { setImmediate } from "node:timers/promises";
import {
  encodeMessage,
  toFieldloopError,
  type DeviceState,
  type ErrorCode,
  type LaneState,
} from "@fieldloop/protocol";
import type {
  Activation,
  HostMessage,
  LaneActivation,
  PackageToRun,
  ProviderSearch,
  SelfTest,
} from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { sourceName } from "../source-spec.js";
import { FrameCounters } from "./counters.js";
import { DEFAULT_PREDICTIONS_SECONDS, type HostLinkOptions } from "./host-link-options.js";
import { inIdleScratchHost, stdinOf } from "./host-process.js";
import { frameMarkPath } from "./lane-files.js";
import {
  forgetHost,
  type LaneLink,
  laneLinks,
  providerToBlame,
  ranBeside,
  runningOf,
  suspectsOf,
} from "./lane-link.js";
import { MemoryCeiling } from "./memory-ceiling.js";
import { PredictionBatches } from "./prediction-batcher.js";
import { judgeFrames } from "./quarantine.js";
import { appendSample } from "./samples.js";
import { type ShadowRequest, Shadows } from "./shadow/shadows.js";
import type { ShadowOutcome } from "./shadow/trial.js";
import { startMessage } from "./start-message.js";
import { type HostCrash, Supervisor } from "./supervisor.js";

/** What a profile is worth when space runs out. */
const PROFILE_WORTH = 0.7;

const HOST_TROUBLES = [
  "host_crashed",
  "host_unresponsive",
  "host_memory_exceeded",
  "frame_quarantined",
] as const;

/** Control's end of the inference host: what its lanes have to run, what it says, and what happens when it ends. */
export class HostLink {
  readonly supervisor: Supervisor;
  readonly batches: PredictionBatches;
  readonly frames = new FrameCounters();
  readonly #options: HostLinkOptions;
  readonly #lanes: ReadonlyMap<string, LaneLink>;
  readonly #memory: MemoryCeiling;
  readonly #shadows: Shadows;
  /** Troubles that this host told, each with its scope. */
  readonly #told = new Map<string, { readonly code: ErrorCode; readonly scope: string }>();
  /** Hosts in a row that ended before they were ready. */
  #startsFailed = 0;
  /** How the host before ended, where that was not in order. */
  #lastCrash: HostCrash | undefined;
  #samplesTaken = 0;
  #upSince = 0;
  #predictionsTimer: NodeJS.Timeout | undefined;
  #predictionsSeconds: number | undefined;

  constructor(options: HostLinkOptions) {
    this.#options = options;
    this.batches = new PredictionBatches(options.spool, options.boot);
    this.#memory = new MemoryCeiling(options);
    const { directory, lanes, host, clock, log } = options;
    this.#lanes = laneLinks(lanes);
    this.supervisor = new Supervisor({
      directory,
      frameMarks: new Map(lanes.map(({ name }) => [name, frameMarkPath(directory, name)])),
      ...host,
      stdin: stdinOf(lanes),
      first: options.firstHost,
      runTimes: options.runTimes,
      clock,
      log,
      startMessage: () => startMessage(options, this.#lanes.values(), this.batches.numbers),
      onReady: (activated) => this.#ready(activated),
      onMessage: (message) => this.#received(message),
      onCrash: (crash) => void this.#crashed(crash),
      onEnd: () => {
        this.#lastCrash = undefined;
        this.#forgetHost();
      },
    });
    const { supervisor } = this;
    this.#shadows = new Shadows({
      ...options,
      supervisor,
      running: (lane) => this.running(lane) ?? undefined,
    });
  }

  /** What a lane runs right now; null between two hosts and before the first version. */
  running(lane: string): DeviceState["running"] {
    return this.#lanes.get(lane)?.running ?? null;
  }

  /** Each lane as it is reported. */
  get states(): LaneState[] {
    return [...this.#lanes.values()].map(({ spec, running, rateMax }) => ({
      name: spec.name,
      source: sourceName(spec.source),
      model: spec.model,
      priority: spec.priority,
      running,
      deployment: this.#options.updater(spec.name).deployment,
      ...this.frames.of(spec.name),
      rateMax,
    }));
  }

  get samplesTaken(): number {
    return this.#samplesTaken;
  }
  /** Milliseconds since the host was last started; 0 while it is not ready. */
  get upMs(): number {
    return this.supervisor.ready ? this.#options.clock.monotonic() - this.#upSince : 0;
  }

  /** Those of the host are over when it has run for a while. */
  forgetOldTroubles(): void {
    if (this.upMs < AGENT_LIMITS.hostHealthyMs) return;
    for (const code of HOST_TROUBLES) this.#options.warnings.clear(code);
  }

  start(): void {
    this.supervisor.start();
    this.applyPolicy();
  }

  /** Ends the runs in hand; every prediction is in the spool's memory then. */
  async stop(): Promise<void> {
    clearInterval(this.#predictionsTimer);
    await this.supervisor.stop();
    this.batches.cut();
  }

  /** The desired state changed: sampling and intervals follow it. */
  applyPolicy(): void {
    const desired = this.#options.desired();
    if (desired) {
      const { sampling, profileIntervalSeconds } = desired;
      this.supervisor.send({ kind: "policy", sampling, profileIntervalSeconds });
    }
    const seconds = desired?.predictionsIntervalSeconds ?? DEFAULT_PREDICTIONS_SECONDS;
    // Desired states that come more often than that must not put it off each time.
    if (seconds === this.#predictionsSeconds) return;
    this.#predictionsSeconds = seconds;
    clearInterval(this.#predictionsTimer);
    this.#predictionsTimer = setInterval(() => this.batches.cut(), seconds * 1000);
  }

  /** Golden cases, on the provider that is best here, in a process of their own. @throws FieldloopError */
  async selfTest(candidate: PackageToRun, signal: AbortSignal): Promise<SelfTest> {
    const { providers } = this.#options;
    const search = providers.search;
    const result = await this.#tryOut(candidate, search, signal);
    if (search) await providers.remember(candidate.packageSha256, result.providers ?? []);
    const { providerTrouble: trouble } = result;
    if (trouble) this.#options.warnings.raise(trouble.code, trouble.message);
    else this.#options.warnings.clear("provider_unavailable");
    return result;
  }

  /**
   * Takes a lane back to the best of the providers of what it runs, which it left for the next one, where that gives the right results
   * again: golden cases first, in a process of their own. @throws FieldloopError; the lane runs on as it did
   */
  async returnToBest(lane: string, target: PackageToRun, signal: AbortSignal): Promise<void> {
    const [best] = this.#options.providers.planFor(target).providers ?? [];
    if (!best) return;
    await this.#tryOut({ ...target, providers: [best] }, undefined, signal);
    await this.#load("reopen", lane, target, signal);
  }

  #tryOut(target: PackageToRun, search: ProviderSearch | undefined, signal: AbortSignal): Promise<SelfTest> {
    const request = {
      kind: "self_test",
      package: target,
      threadCount: 1,
      ...(search ? { search } : {}),
    } as const;
    return inIdleScratchHost(this.#options.host, request, AGENT_LIMITS.selfTestTimeoutMs, signal);
  }

  /**
   * The candidate sees, in a process of its own, what the lane's active version sees, until the terms are met.
   * @throws FieldloopError `shadow_failed`, `timed_out`, `cancelled`
   */
  shadow(lane: string, request: ShadowRequest, signal: AbortSignal): Promise<ShadowOutcome> {
    const { providers, updater } = this.#options;
    const candidate = providers.planFor(request.candidate);
    return this.#shadows.run(lane, updater(lane).toRun, { ...request, candidate }, signal);
  }

  /**
   * Loads beside the running session and swaps; undefined unloads. A host that ends meanwhile with a frame of another lane in hand, or was
   * told to end, says nothing of this version: the next host is asked again.
   * @throws FieldloopError with the old one still running; `cancelled` once `signal` aborts
   */
  async activate(
    lane: string,
    target: PackageToRun | undefined,
    signal?: AbortSignal,
  ): Promise<Activation | undefined> {
    const link = this.#lanes.get(lane)!;
    if (!target) {
      await this.supervisor.request({ kind: "deactivate", lane }, AGENT_LIMITS.activateTimeoutMs, signal);
      link.running = null;
      this.#options.onChange();
      return undefined;
    }
    return this.#load("activate", lane, target, signal);
  }

  async #load(
    kind: "activate" | "reopen",
    lane: string,
    target: PackageToRun,
    signal: AbortSignal | undefined,
  ): Promise<Activation> {
    const link = this.#lanes.get(lane)!;
    for (let attempt = 1; ; attempt++) {
      const planned = this.#options.providers.planFor(target);
      link.activating = planned;
      // Another one may have been asked for behind it.
      const over = (): void => {
        if (link.activating === planned) link.activating = undefined;
      };
      try {
        const request = { kind, lane, package: planned };
        const activation = await this.supervisor.request(request, AGENT_LIMITS.activateTimeoutMs, signal);
        this.#setRunning(link, activation);
        over();
        return activation;
      } catch (error) {
        const { code } = toFieldloopError(error);
        // A dead host is told about in #crashed, which wants to know what was being loaded.
        if (code === "host_crashed") {
          await setImmediate();
          const isInnocent = !this.#lastCrash || ranBeside(this.#lastCrash, lane);
          if (isInnocent && attempt < AGENT_LIMITS.hostActivationsMax) continue;
          throw error;
        }
        over();
        if (code === "timed_out") await this.#loadHangs(planned);
        throw error;
      }
    }
  }

  /** What is still being loaded could come to run at any time, and keeps its lane from everything else: the host goes. */
  async #loadHangs(target: PackageToRun): Promise<void> {
    const first = target.providers?.[0];
    if (first && first.executionProvider !== "cpu") {
      this.#options.providers.demote(target.packageSha256, first);
    }
    await this.restart();
  }

  /** Ends the host in order; the next one goes on with every lane. */
  async restart(): Promise<void> {
    await this.supervisor.restart();
  }

  /** What the host said of itself ended with it. */
  #forgetHost(): void {
    this.frames.hostEnded();
    this.#shadows.hostEnded();
    this.#options.onHostEnded();
    for (const link of this.#lanes.values()) forgetHost(link);
    for (const { code, scope } of this.#told.values()) this.#options.warnings.clear(code, scope);
    this.#told.clear();
  }

  #ready(lanes: readonly LaneActivation[]): void {
    this.#upSince = this.#options.clock.monotonic();
    this.#startsFailed = 0;
    for (const link of this.#lanes.values()) link.starting = undefined;
    for (const { lane, activation } of lanes) {
      const link = this.#lanes.get(lane);
      if (link && activation) this.#setRunning(link, activation);
      else if (link && this.#options.updater(lane).toRun) void this.#withoutModel(lane);
    }
    this.#options.onChange();
  }

  /** The host is up, but the version that a lane should run did not load. */
  async #withoutModel(lane: string): Promise<void> {
    const { log, packages } = this.#options;
    const updater = this.#options.updater(lane);
    if (updater.deployment?.state === "probation") {
      for (let crash = 0; crash < AGENT_LIMITS.probationHostCrashesMax; crash++) updater.noteHostCrash();
      return;
    }
    const previous = updater.previous;
    if (!previous) return;
    log.warn({ lane }, "the active version does not load: running the one before");
    try {
      await this.activate(lane, packages.toRun(previous.packageSha256));
    } catch (error) {
      log.error({ code: toFieldloopError(error).code, lane }, "the version before does not load either");
    }
  }

  #setRunning(link: LaneLink, activation: Activation): void {
    const { clock, log, warnings } = this.#options;
    const { model, version, packageSha256 } = activation.origin;
    const { variant, executionProvider, loadMs } = activation;
    link.running = runningOf(activation, clock.now());
    if (this.#options.providers.isBest(packageSha256, executionProvider)) warnings.clear("provider_failed");
    const lane = link.spec.name;
    log.info({ lane, package: `${model}@${version}`, variant, executionProvider, loadMs }, "running");
    warnings.clear("model_load_failed", lane);
    this.#options.onChange();
  }

  #received(message: HostMessage): void {
    const { spool, device, boot, feedback, log, warnings } = this.#options;
    switch (message.kind) {
      case "heartbeat":
        return this.#beat(message);
      case "changed": {
        const link = this.#lanes.get(message.lane);
        if (link) this.#setRunning(link, message.activation);
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
      case "warning": {
        const { failure, lane, active } = message;
        // Of a provider that failed it is control that knows when it runs again.
        const { code } = failure;
        const scope = lane ?? "";
        if (code !== "provider_failed") this.#told.set(`${code} ${scope}`, { code, scope });
        if (active) warnings.raise(code, this.#named(lane, failure.message), "warning", lane);
        else warnings.clear(code, lane);
        return;
      }
      case "shadow":
        return this.#shadows.received(message);
      case "disagreement":
        return this.batches.setSignal(message.lane, message.n, "disagreement", message.value);
      case "ready":
      case "shadow_beat":
      case "response":
      case "refused":
      case "stopped":
        return;
    }
  }

  /** With one lane nobody asks which. */
  #named(lane: string | undefined, message: string): string {
    return lane === undefined || this.#lanes.size === 1 ? message : `${lane}: ${message}`;
  }

  #beat(heartbeat: Extract<HostMessage, { kind: "heartbeat" }>): void {
    for (const [lane, failed] of this.frames.beat(heartbeat)) {
      if (failed > 0) this.#options.updater(lane).noteFramesFailed(failed);
    }
    let limited = false;
    for (const { name, rateMax } of heartbeat.lanes) {
      const link = this.#lanes.get(name);
      if (!link || link.rateMax === rateMax) continue;
      link.rateMax = rateMax;
      limited = true;
    }
    if (limited) this.#options.onChange();
    // While a version is being taken in, an end of the host would be held against it.
    const isChanging = [...this.#lanes.values()].some(({ activating }) => activating !== undefined);
    if (isChanging || !this.supervisor.ready) return;
    if (!this.#memory.isExceeded(heartbeat.residentBytes)) return;
    for (const lane of this.#lanes.keys()) this.#options.updater(lane).noteMemoryExceeded();
    void this.restart();
  }

  #addPredictions(message: Extract<HostMessage, { kind: "predictions" }>): void {
    const { lane, origin, firstN, rows } = message;
    try {
      this.batches.add(lane, origin, firstN, rows);
      const latencyMs = rows.reduce((sum, row) => sum + row.latencyMs, 0);
      this.#options.updater(lane).notePredictions(origin.packageSha256, rows.length, latencyMs);
      this.#options.onPredictions(message);
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#options.warnings.raise(coded.code, coded.message, "error");
      void this.restart();
    }
  }

  async #crashed(crash: HostCrash): Promise<void> {
    const { log, emit, warnings, quarantine } = this.#options;
    const { reason, unresponsive, frames } = crash;
    this.#lastCrash = crash;
    if (!crash.wasReady) this.#startsFailed++;
    const suspects = suspectsOf(crash, [...this.#lanes.values()]);
    const [suspect] = suspects;
    const frameSha256 = frames[0]?.hashes[0];
    log.warn({ reason, unresponsive, frame: frameSha256?.slice(0, 16) }, "inference host ended");
    emit({
      type: "crash",
      process: "host",
      reason: unresponsive ? `unresponsive, killed (${reason})` : reason,
      // Between two versions, or with frames of two, nobody can say which of them it was.
      ...(suspects.length === 1 && suspect?.running && !suspect.activating
        ? { model: suspect.running.model, version: suspect.running.version }
        : {}),
      ...(frameSha256 ? { frameSha256 } : {}),
    });
    const blamed = new Set<string>();
    for (const link of suspects) {
      // What a driver does is not held against the version: the next host runs it elsewhere.
      if (this.#blameProvider(link, crash)) blamed.add(link.spec.name);
      else this.#options.updater(link.spec.name).noteHostCrash();
    }
    this.#forgetHost();
    const code = unresponsive ? "host_unresponsive" : "host_crashed";
    warnings.raise(code, `The inference host ended: ${reason}`);
    // A frame that was with a driver may well be run elsewhere.
    const judged = { ...crash, frames: frames.filter(({ lane }) => !blamed.has(lane)) };
    await judgeFrames(judged, quarantine, warnings);
  }

  /** A driver may take the whole process with it: the next host runs the model on the next provider. True where it is to blame. */
  #blameProvider(link: LaneLink, crash: HostCrash): boolean {
    const blamed = providerToBlame(link, crash, this.#startsFailed);
    if (!blamed) return false;
    const { providers, warnings } = this.#options;
    const { packageSha256, provider } = blamed;
    providers.demote(packageSha256, provider);
    const message = `Run on "${provider.executionProvider}": the host ended (${crash.reason}), the next one takes over`;
    warnings.raise("provider_failed", message);
    return true;
  }
}
