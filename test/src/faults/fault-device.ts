import {
  type Activation,
  type Bandwidth,
  type Clock,
  createAgentLog,
  DesiredFollower,
  DesiredStore,
  type DeviceFiles,
  Durable,
  openBandwidth,
  PackageStore,
  type PackageToRun,
  type PersistObserver,
  ProviderPlans,
  type SelfTest,
  systemClock,
  Updater,
  type UpdaterOptions,
  Warnings,
} from "@fieldloop/device-agent";
import {
  createSigningKey,
  DESIRED_TYPE,
  encodeMessage,
  MAIN_LANE,
  sign,
  toFieldloopError,
  UNLIMITED,
  type Assignment,
  type Desired,
  type EventData,
} from "@fieldloop/protocol";
import {
  checkGolden,
  type LoadedModel,
  type ModelPackage,
  openModel,
  openPackage,
} from "@fieldloop/runtime/node";
import { TEST_FACTS } from "../kit/api.js";
import type { MemoryServer } from "./memory-server.js";

const DEVICE = "fault-1";
const KEY = createSigningKey((length) => new Uint8Array(length).fill(5));
const log = createAgentLog({ level: "error", write: () => undefined });
const SETTLED: ReadonlySet<string> = new Set([
  "active",
  "rejected",
  "failed",
  "timed_out",
  "rolled_back",
  "cancelled",
]);
/** So many predictions a poll are enough for the probation of one assignment. */
const PREDICTIONS = 5;
const WAIT_MS = 20_000;

export type DeploymentEvent = Extract<EventData, { type: "deployment" }>;

/** What a device is asked to run. Its terms are the shortest, unless a scenario says otherwise. */
export function assignmentOf(
  made: ModelPackage,
  deployment: string,
  change: Partial<Assignment> = {},
): Assignment {
  return {
    deployment,
    lane: MAIN_LANE,
    model: made.manifest.model,
    version: made.manifest.version,
    packageSha256: made.packageSha256,
    manifestBytes: made.manifestBytes.length,
    probation: { seconds: 0, predictions: PREDICTIONS },
    shadow: null,
    window: null,
    expires: null,
    ...change,
  };
}

/** The fleet's word, signed; the same revision again where it is sent once more. */
export function desiredOf(revision: number, assignments: readonly Assignment[]): Uint8Array {
  const desired: Desired = {
    device: DEVICE,
    revision,
    issued: 1_000,
    assignments: [...assignments],
    sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 },
    predictionsIntervalSeconds: 1,
    profileIntervalSeconds: 60,
    limits: UNLIMITED,
    configId: null,
  };
  return sign(DESIRED_TYPE, encodeMessage("desired", desired), KEY);
}

export interface FaultDeviceOptions {
  readonly directory: string;
  readonly server: MemoryServer;
  readonly files?: DeviceFiles;
  readonly onPersist?: PersistObserver;
  readonly clock?: Clock;
  readonly updater?: Partial<UpdaterOptions>;
}

/**
 * The update part of an agent in this process: desired state, trust, packages, providers, budget and updater as they ship, over a disk
 * that a test chooses. In place of the host process it opens packages itself, through the runtime and ONNX Runtime, checks their golden
 * cases and predicts on them.
 */
export class FaultDevice {
  readonly events: DeploymentEvent[] = [];
  /** Refuses to load these packages. */
  readonly unloadable = new Set<string>();
  /** Stops predicting: a probation never gets its predictions. */
  isSilent = false;
  updater!: Updater;
  readonly #options: FaultDeviceOptions;
  #desired!: DesiredFollower;
  #packages!: PackageStore;
  #providers!: ProviderPlans;
  #bandwidth!: Bandwidth;
  #model: LoadedModel | undefined;
  /** The last check on a model that runs, whatever came of it. */
  #inHand: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: FaultDeviceOptions) {
    this.#options = options;
  }

  /** Starts as an agent does, and follows what it knows of the desired state. */
  async start(): Promise<void> {
    const { directory, files, onPersist, clock = systemClock, server, updater } = this.#options;
    const durable = new Durable(files, onPersist);
    const onCorrupt = (): void => undefined;
    this.#packages = new PackageStore(directory, durable);
    this.#desired = new DesiredFollower({
      store: new DesiredStore(directory, DEVICE, () => [KEY], durable),
      warnings: new Warnings(clock, log, () => undefined),
      floor: () => this.updater.revisionFloor,
      follow: () => this.updater.follow(this.#desired.current!.assignments, this.#desired.revision),
      onRefused: () => undefined,
      onUnknownKey: () => undefined,
      retryMinMs: 1,
    });
    this.#bandwidth = await openBandwidth({ directory, durable, clock, bytesPerSecond: 1e9, log, onCorrupt });
    this.#providers = await ProviderPlans.load(
      directory,
      { option: "auto", threadCount: 1, machine: [] },
      durable,
      onCorrupt,
    );
    this.updater = new Updater({
      directory,
      server: "http://fleet",
      credential: "none",
      // Whether a package is the fleet's is another test's matter: here it is always.
      trust: {
        package: ({ packageSha256, manifestBytes }) =>
          Promise.resolve({ packageSha256, manifestBytes, deviceClasses: null }),
      },
      facts: TEST_FACTS,
      packages: this.#packages,
      bandwidth: this.#bandwidth,
      fetch: server.fetch,
      clock,
      random: () => 0,
      log,
      selfTest: (candidate) => this.#selfTest(candidate),
      activate: (target) => this.#activate(target),
      running: () => this.#model && { packageSha256: this.#model.package.packageSha256, variant: "fp32" },
      emit: (event) => {
        if (event.type === "deployment") this.events.push(event);
      },
      onChange: () => undefined,
      onCorrupt,
      pollMs: 1,
      times: {
        download: { attemptsMax: 4, retryMinMs: 1, retryMaxMs: 4, stallMs: 2_000 },
        trustRetryMinMs: 1,
        storageRetryMinMs: 1,
        windowPollMs: 1,
        updaterRetryMs: 1,
      },
      ...updater,
    });
    await this.#packages.open();
    await this.updater.load();
    await this.#desired.load();
    await this.#activate(this.updater.toRun);
    this.#timer = setInterval(() => this.#predict(), 1);
    await this.updater.resume();
    await this.#desired.followCurrent();
  }

  /** What the broker brings; it may bring an older one again. */
  receive(envelope: Uint8Array): void {
    this.#desired.receive(envelope);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#desired?.stop();
    await this.updater?.stop();
    await this.#bandwidth?.close();
    await this.#model?.release();
    this.#model = undefined;
  }

  get revision(): number {
    return Math.max(this.#desired.revision, this.updater.revisionFloor);
  }
  /** Hash of the package whose session answers; undefined where none does. */
  get running(): string | undefined {
    return this.#model?.package.packageSha256;
  }
  get state(): string | undefined {
    return this.updater.deployment?.state;
  }

  /** Golden cases on the session that answers at this moment. @throws FieldloopError where it is not what its package says */
  async predicts(): Promise<void> {
    if (!this.#model) throw new Error("nothing runs");
    const checking = checkGolden(this.#model);
    this.#inHand = checking.catch(() => undefined);
    await checking;
  }

  settled(deployment: string): Promise<void> {
    return this.until(`${deployment} is settled`, () => {
      const current = this.updater.deployment;
      if (current?.deployment !== deployment || !SETTLED.has(current.state)) return false;
      // What is said first on disk is done right after: the old version is loaded again.
      return this.running === this.updater.toRun?.packageSha256;
    });
  }

  /** Waits for what the device comes to by itself. @throws Error after a while, and at once where it was stopped */
  async until(what: string, probe: () => boolean): Promise<void> {
    const deadline = performance.now() + WAIT_MS;
    while (!probe()) {
      const state = JSON.stringify(this.updater?.deployment ?? null);
      if (this.#stopped) throw new Error(`It was stopped before ${what}: ${state}`);
      if (performance.now() > deadline) throw new Error(`Not in ${WAIT_MS} ms: ${what}; it is ${state}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  #predict(): void {
    if (this.isSilent || !this.running) return;
    this.updater.notePredictions(this.running, PREDICTIONS, 1);
  }

  async #selfTest(candidate: PackageToRun): Promise<SelfTest> {
    const model = await this.#open(candidate);
    try {
      const { cases, worstAbsoluteError } = await checkGolden(model);
      const providers = [{ executionProvider: "cpu", variant: "fp32" }];
      await this.#providers.remember(candidate.packageSha256, providers);
      const numbers = { goldenCases: cases, differenceMax: worstAbsoluteError, loadMs: 1, residentBytes: 1 };
      return { variant: "fp32", executionProvider: "cpu", ...numbers, providers };
    } finally {
      await model.release();
    }
  }

  async #activate(target: PackageToRun | undefined): Promise<Activation | undefined> {
    const old = this.#model;
    if (target?.packageSha256 === old?.package.packageSha256 && old) return activationOf(old);
    const next = target && (await this.#open(target));
    if (this.#stopped) {
      await next?.release();
      return undefined;
    }
    this.#model = next;
    // As in a host, where versions change between two turns: what runs is not released under it.
    await this.#inHand;
    await old?.release();
    return next && activationOf(next);
  }

  async #open(target: PackageToRun): Promise<LoadedModel> {
    if (this.unloadable.has(target.packageSha256)) throw toFieldloopError(new Error("it does not load here"));
    return openModel(await openPackage(target.directory, { purpose: "running" }), { threadCount: 1 });
  }
}

function activationOf({ package: { manifest, packageSha256 } }: LoadedModel): Activation {
  const { model, version } = manifest;
  return {
    origin: { model, version, packageSha256, signalNames: [] },
    variant: "fp32",
    executionProvider: "cpu",
    loadMs: 1,
    swapGapMs: 0,
    framesDroppedDuringSwap: 0,
  };
}
