import { join } from "node:path";
import {
  encodeMessage,
  formatPredictionId,
  toFieldloopError,
  type Ack,
  type DeviceState,
  type EventData,
} from "@fieldloop/protocol";
import { driverStamp } from "@fieldloop/runtime/vendor";
import type { Logger } from "pino";
import { type Clock, systemClock } from "../clock.js";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import type { AgentHandle } from "./agent.js";
import { type Bandwidth, openBandwidth } from "./bandwidth.js";
import { Commands } from "./commands.js";
import type { DaemonParts } from "./daemon-parts.js";
import { DesiredFollower } from "./desired-follower.js";
import { DesiredStore } from "./desired-store.js";
import { nodeFiles } from "./device-files.js";
import { Durable } from "./durable.js";
import { FeedbackGatherer, type FeedbackItem, unknownPrediction } from "./feedback.js";
import { healthOf } from "./health.js";
import { HostLink } from "./host-link.js";
import { httpFetch } from "./http-fetch.js";
import { LaneUpdaters } from "./lane-updaters.js";
import { LocalApi } from "./local-api.js";
import { LocalInference } from "./local-inference.js";
import { agentMetrics } from "./agent-metrics.js";
import { rebuildInProcess } from "./delta-process.js";
import { deviceState } from "./device-state.js";
import { type DeviceTrust, deviceTrust } from "./device-trust.js";
import { createMetrics } from "./metrics.js";
import { PackageCatalog } from "./package-catalog.js";
import { PackageStore } from "./package-store.js";
import { targetTrust } from "./package-trust.js";
import { PredictionFeed } from "./prediction-feed.js";
import { ProviderPlans } from "./provider-plans.js";
import { ProviderRenewal } from "./provider-renewal.js";
import { Quarantine } from "./quarantine.js";
import { runCommand } from "./run-command.js";
import { Sender } from "./sender.js";
import { Spool } from "./spool/spool.js";
import { Troubles } from "./troubles.js";
import { isUnknownKey } from "./trust-follower.js";
import { Uplink } from "./uplink.js";
import { Warnings } from "./warnings.js";

/** How long a stop waits for the server to acknowledge what is left; the rest waits in the spool. */
const DRAIN_MS = 3_000;
const TICK_MS = 1_000;
/** The control process: makes the parts of the agent, ties them to each other, and reports their state. */
export class Daemon implements AgentHandle {
  readonly device: string;
  readonly boot: number;
  readonly #parts: DaemonParts;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #warnings: Warnings;
  readonly #troubles: Troubles;
  readonly #trust: DeviceTrust;
  readonly #desired: DesiredFollower;
  readonly #durable: Durable;
  readonly #packages: PackageStore;
  readonly #catalog: PackageCatalog;
  readonly #feed: PredictionFeed;
  #bandwidth!: Bandwidth;
  #spool!: Spool;
  #feedback!: FeedbackGatherer;
  #updaters!: LaneUpdaters;
  #host!: HostLink;
  #sender!: Sender;
  #renewal: ProviderRenewal | undefined;
  #uplink: Uplink | undefined;
  #inference!: LocalInference;
  #localApi!: LocalApi;
  #tickTimer: NodeJS.Timeout | undefined;
  #stopping: Promise<void> | undefined;

  constructor(parts: DaemonParts) {
    const { options, identity, boot } = parts;
    this.#parts = parts;
    this.device = identity.device;
    this.boot = boot;
    this.#log = options.log;
    this.#clock = options.clock ?? systemClock;
    this.#warnings = new Warnings(this.#clock, this.#log, (event) => {
      this.#emit(event);
      this.#changed();
    });
    const { directory, log } = options;
    this.#troubles = new Troubles({ directory, device: this.device, boot, log, warnings: this.#warnings });
    this.#durable = new Durable(nodeFiles, options.onPersist);
    this.#trust = deviceTrust(parts, {
      clock: this.#clock,
      warnings: this.#warnings,
      spent: (bytes) => this.#bandwidth.take("download", bytes),
      onRefreshed: () => this.#desired.retry(),
      onHarmed: (message) => this.#troubles.corrupt(message),
    });
    this.#desired = new DesiredFollower({
      store: new DesiredStore(options.directory, identity.device, this.#trust.follower.keys, this.#durable),
      warnings: this.#warnings,
      floor: () => this.#updaters.revisionFloor,
      follow: () => this.#follow(),
      onRefused: (error) => this.#troubles.refused("desired state", error),
      onUnknownKey: () => this.#trust.follower.unknownKey(),
    });
    this.#packages = new PackageStore(options.directory, this.#durable);
    this.#catalog = new PackageCatalog(this.#packages);
    this.#feed = new PredictionFeed(boot, this.#catalog);
  }

  get localUrl(): string {
    return this.#localApi.url;
  }
  get localSocket(): string | undefined {
    return this.#localApi.socketPath;
  }
  get grpcUrl(): string | undefined {
    return this.#localApi.grpcUrl;
  }
  hostPid = (): number | undefined => this.#host.supervisor.pid;

  async start(): Promise<void> {
    const { options, corrupt } = this.#parts;
    const onCorrupt = (message: string): void => this.#troubles.corrupt(message);
    this.#bandwidth = await openBandwidth({
      directory: options.directory,
      durable: this.#durable,
      clock: this.#clock,
      bytesPerSecond: options.uplinkBytesPerSecond ?? AGENT_LIMITS.uplinkBytesPerSecondDefault,
      log: this.#log,
      onCorrupt,
    });
    this.#spool = await this.#openSpool();
    const quarantine = await Quarantine.load(options.directory, onCorrupt);
    this.#sender = this.#makeSender();
    this.#feedback = new FeedbackGatherer(this.#spool, (event) => this.#emit(event));
    this.#updaters = this.#makeUpdaters(onCorrupt);
    const providers = await this.#loadProviders(onCorrupt);
    this.#host = this.#makeHost(quarantine, providers);
    this.#inference = this.#makeInference(providers);
    this.#updaters.keep((packageSha256) => this.#inference.needs(packageSha256));
    this.#localApi = this.#makeLocalApi();
    await this.#packages.open();
    await this.#trust.client.open();
    await this.#updaters.load();
    await this.#desired.load();
    for (const message of corrupt) onCorrupt(message);
    if (this.#spool.cutBytes > 0) {
      const message = `Open spool: ${this.#spool.cutBytes} bytes behind the last good checksum were cut`;
      this.#warnings.raise("spool_corrupt", message, "info");
    }
    await this.#localApi.start();
    this.#uplink = this.#makeUplink();
    this.#host.start();
    this.#uplink.start();
    this.#trust.follower.start();
    await this.#updaters.resume();
    await this.#desired.followCurrent();
    this.#renewal = new ProviderRenewal({
      host: this.#host,
      providers,
      updater: (lane) => this.#updaters.of(lane),
      clock: this.#clock,
      log: this.#log,
    });
    this.#renewal.start();
    this.#tickTimer = setInterval(() => this.#host.forgetOldTroubles(), TICK_MS);
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    clearInterval(this.#tickTimer);
    await this.#trust.follower.stop();
    await this.#localApi.stop();
    await this.#desired.stop();
    await this.#renewal?.stop();
    await this.#updaters.stop();
    await this.#host.stop();
    try {
      await this.#feedback.flush();
      await this.#spool.flush();
    } catch (error) {
      this.#log.error({ code: toFieldloopError(error).code }, "what was left could not be written");
    }
    await this.#uplink?.drain(DRAIN_MS);
    await this.#uplink?.stop();
    await this.#bandwidth.close();
    await this.#spool.close().catch((error: unknown) => {
      this.#log.error({ code: toFieldloopError(error).code }, "the spool could not be closed in order");
    });
    await this.#parts.unlock();
  }

  // The parts

  #openSpool(): Promise<Spool> {
    const { options } = this.#parts;
    return Spool.open({
      directory: join(options.directory, "spool"),
      boot: this.boot,
      bytesMax: options.spoolBytesMax ?? AGENT_LIMITS.spoolBytesMaxDefault,
      onDurable: () => this.#sender.pump(),
      onEvicted: (stream, records, bytes) => this.#emit({ type: "eviction", stream, records, bytes }),
      onStorage: (error) => this.#troubles.storage(error),
    });
  }

  #makeSender(): Sender {
    return new Sender({
      device: this.device,
      spool: this.#spool,
      clock: this.#clock,
      bandwidth: this.#bandwidth,
      onError: (error) => this.#warnings.raise(error.code, error.message),
    });
  }

  #makeUpdaters(onCorrupt: (message: string) => void): LaneUpdaters {
    const { options, identity, lanes, facts } = this.#parts;
    return new LaneUpdaters({
      lanes,
      directory: options.directory,
      server: identity.server,
      credential: identity.credential,
      trust: targetTrust(this.#trust.client),
      facts,
      packages: this.#packages,
      bandwidth: this.#bandwidth,
      fetch: options.fetch ?? httpFetch,
      rebuild: rebuildInProcess,
      clock: this.#clock,
      random: options.random ?? Math.random,
      log: options.log,
      selfTest: (candidate, signal) => this.#host.selfTest(candidate, signal),
      shadow: (lane, request, signal) => this.#host.shadow(lane, request, signal),
      activate: (lane, target, signal) => this.#host.activate(lane, target, signal),
      running: (lane) => this.#host.running(lane) ?? undefined,
      emit: (event) => this.#emit(event),
      onChange: () => this.#changed(),
      onCorrupt,
      ...(options.updateTimes === undefined ? {} : { times: options.updateTimes }),
    });
  }

  get #threadCount(): number {
    const { options, facts } = this.#parts;
    return options.threadCount ?? Math.max(1, Math.floor(facts.cpuCount / 2));
  }

  #loadProviders(onCorrupt: (message: string) => void): Promise<ProviderPlans> {
    const { options, host } = this.#parts;
    const terms = {
      option: options.provider ?? "cpu",
      threadCount: this.#threadCount,
      machine: [AGENT_VERSION, ...driverStamp(host.env)],
    };
    return ProviderPlans.load(options.directory, terms, this.#durable, onCorrupt);
  }

  #makeHost(quarantine: Quarantine, providers: ProviderPlans): HostLink {
    const { options, lanes, host, firstHost } = this.#parts;
    return new HostLink({
      directory: options.directory,
      device: this.device,
      boot: this.boot,
      lanes,
      host,
      firstHost,
      threadCount: this.#threadCount,
      hostBytesMax: options.hostBytesMax ?? AGENT_LIMITS.hostBytesMaxDefault,
      thermalPath: options.thermalPath,
      governorTimes: options.governorTimes,
      runTimes: options.runTimes,
      clock: this.#clock,
      log: options.log,
      spool: this.#spool,
      warnings: this.#warnings,
      feedback: this.#feedback,
      quarantine,
      packages: this.#packages,
      providers,
      desired: () => this.#desired.current,
      updater: (lane) => this.#updaters.of(lane),
      onPredictions: (message) => this.#feed.publish(message),
      onHostEnded: () => this.#inference.hostEnded(),
      emit: (event) => this.#emit(event),
      onChange: () => this.#changed(),
    });
  }

  #makeInference(providers: ProviderPlans): LocalInference {
    return new LocalInference({
      host: this.#host.supervisor,
      catalog: this.#catalog,
      toRun: (packageSha256) => providers.planFor(this.#packages.toRun(packageSha256)),
      hostBytesMax: this.#parts.options.hostBytesMax ?? AGENT_LIMITS.hostBytesMaxDefault,
    });
  }

  #makeLocalApi(): LocalApi {
    const { supervisor } = this.#host;
    const { lanes, options } = this.#parts;
    return new LocalApi({
      port: options.port ?? 0,
      socketPath: options.socketPath,
      grpcPort: options.grpcPort,
      lanes: lanes.map(({ name }) => name),
      inference: this.#inference,
      feed: this.#feed,
      predict: (lane, frame, signal) =>
        supervisor.request({ kind: "predict", lane, frame }, AGENT_LIMITS.localInferTimeoutMs, signal),
      metrics: createMetrics(
        agentMetrics(
          this.#host,
          this.#spool,
          this.#sender,
          this.#warnings,
          () => this.#uplink?.connected ?? false,
        ),
      ),
      state: () => this.state(),
      hostPid: this.hostPid,
      health: () => healthOf(this.#host.supervisor.ready, this.#warnings),
      feedback: (boot, items) => this.#takeFeedback(boot, items),
      returnPrevious: (lane) => this.#updaters.returnPrevious(lane),
      setCondition: async (condition, lane) =>
        (await supervisor.request({ kind: "set_condition", condition, lane })).condition,
      truth: async (boot, n) =>
        boot === this.boot ? (await supervisor.request({ kind: "truth", n }))?.label : undefined,
    });
  }

  #makeUplink(): Uplink {
    const { options, identity } = this.#parts;
    const commands = new Commands({
      device: this.device,
      directorKeys: this.#trust.follower.keys,
      clock: this.#clock,
      emit: (event) => this.#emit(event),
      run: (action) =>
        runCommand(action, {
          host: this.#host,
          updaters: this.#updaters,
          reportState: () => this.#changed(),
        }),
    });
    return new Uplink({
      device: this.device,
      credential: identity.credential,
      mqttUrl: identity.mqttUrl,
      boot: this.boot,
      sender: this.#sender,
      clock: this.#clock,
      random: options.random ?? Math.random,
      log: options.log,
      state: () => encodeMessage("state", this.state()),
      onDesired: (envelope) => this.#desired.receive(envelope),
      onCommand: (envelope) => {
        commands.receive(envelope).catch((error: unknown) => {
          this.#troubles.refused("command", error);
          // Whoever sent it sends it again: a command is good for a minute only.
          if (isUnknownKey(error)) this.#trust.follower.unknownKey();
        });
      },
      onAck: (acks) => this.#acknowledged(acks),
      onLink: (error) => this.#troubles.link(error),
    });
  }

  // What the fleet wants

  async #follow(): Promise<void> {
    this.#host.applyPolicy();
    this.#bandwidth.setLimits(this.#desired.current!.limits);
    await this.#updaters.follow(this.#desired.current!);
    this.#changed();
  }

  #acknowledged(acks: readonly Ack[]): void {
    const newest = Math.max(0, ...acks.map((ack) => ack.boot));
    if (newest > this.boot) void this.#troubles.overtaken(newest);
    this.#sender.acknowledged(acks);
  }

  // What other programs on this machine ask

  async #takeFeedback(boot: number, items: readonly FeedbackItem[]): Promise<void> {
    const { numbers } = this.#host.batches;
    const unknown = items.find((item) => boot > this.boot || (boot === this.boot && !numbers.has(item.n)));
    if (unknown) throw unknownPrediction(formatPredictionId(boot, unknown.n));
    await this.#feedback.add(boot, items);
  }

  // What is reported

  state(): DeviceState {
    return deviceState({
      time: this.#clock.now(),
      boot: this.boot,
      facts: this.#parts.facts,
      host: this.#host,
      previous: this.#updaters.first.previous,
      desiredRevision: this.#desired.revision,
      configId: this.#desired.current?.configId ?? null,
      warnings: this.#warnings,
      spool: this.#spool,
    });
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
}
