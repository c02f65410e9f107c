import {
  UNLIMITED,
  type Assignment,
  type DeploymentWaiting,
  type EventData,
  type Facts,
  type FieldloopError,
} from "@fieldloop/protocol";
import { type Clock, systemClock } from "../clock.js";
import { type Bandwidth, openBandwidth } from "../control/bandwidth.js";
import { Durable, type PersistObserver } from "../control/durable.js";
import { type DeviceFiles, nodeFiles } from "../control/device-files.js";
import { httpFetch } from "../control/http-fetch.js";
import { enrol } from "../control/identity.js";
import { inScratchHost } from "../control/host-process.js";
import { PackageStore } from "../control/package-store.js";
import { targetTrust } from "../control/package-trust.js";
import { TrustClient } from "../control/trust/trust-client.js";
import { Updater } from "../control/updater.js";
import type { UpdaterOptions } from "../control/updater-options.js";
import type { Activation, PackageToRun, SelfTest } from "../ipc.js";
import { createAgentLog } from "../log.js";
import { type TestFleet, until } from "./fleet.test.kit.js";

export const TEST_FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "test",
  cpuCount: 2,
  cpuFlags: [],
  memoryBytes: 1_000_000_000,
  executionProviders: ["cpu"],
  nodeVersion: "20.20.2",
  runtimeVersion: "test",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};

const log = createAgentLog({ level: "error", write: (line) => void process.stderr.write(line) });
const silent = createAgentLog({ level: "error", write: () => undefined });

/** A budget of its own in a folder, as good as unlimited. */
export async function openTestBandwidth(
  directory: string,
  options: { readonly clock?: Clock; readonly bytesPerSecond?: number; readonly durable?: Durable } = {},
): Promise<Bandwidth> {
  const { clock = systemClock, bytesPerSecond = 1e9, durable = new Durable() } = options;
  const onCorrupt = (message: string): void => {
    throw new Error(message);
  };
  const bandwidth = await openBandwidth({
    directory,
    durable,
    clock,
    bytesPerSecond,
    log: silent,
    onCorrupt,
  });
  bandwidth.setLimits(UNLIMITED);
  return bandwidth;
}

export const PASSED: SelfTest = {
  variant: "fp32",
  executionProvider: "cpu",
  goldenCases: 1,
  differenceMax: 0,
  loadMs: 1,
  residentBytes: 1,
};
export const SETTLED: ReadonlySet<string> = new Set([
  "active",
  "rejected",
  "failed",
  "timed_out",
  "rolled_back",
  "cancelled",
]);

export interface TestDeviceOptions {
  readonly fleet: TestFleet;
  readonly directory: string;
  readonly files?: DeviceFiles;
  readonly onPersist?: PersistObserver;
  readonly updater?: Partial<UpdaterOptions>;
}

type DeploymentEvent = Extract<EventData, { type: "deployment" }>;

/** An updater over real files and a real server. What its host would do is noted down; self tests run where a test asks. */
export class TestDevice {
  /** Golden cases in a scratch host; by default every package passes. */
  selfTests = false;
  selfTest: SelfTest = PASSED;
  readonly events: DeploymentEvent[] = [];
  readonly activated: (string | undefined)[] = [];
  readonly waits: DeploymentWaiting[] = [];
  startedWith: string | undefined;
  running: string | undefined;
  activationError: FieldloopError | undefined;
  predicting = true;
  /** What loading a package waits for. */
  beforeActivation: (packageSha256: string | undefined) => Promise<void> = () => Promise.resolve();
  updater!: Updater;
  packages!: PackageStore;
  bandwidth!: Bandwidth;
  readonly #options: TestDeviceOptions;

  constructor(options: TestDeviceOptions) {
    this.#options = options;
  }

  async start(): Promise<this> {
    const { directory, fleet, files = nodeFiles, onPersist, updater } = this.#options;
    const told = { server: fleet.serverUrl, token: "t", tags: {}, facts: TEST_FACTS, fetch: httpFetch };
    const identity = await enrol(directory, told);
    this.packages = new PackageStore(directory, new Durable(files, onPersist));
    await this.packages.open();
    this.bandwidth = await openTestBandwidth(directory);
    const trust = new TrustClient({
      directory,
      ...identity,
      factoryRoot: identity.root,
      enrolledKeys: identity.fleetKeys,
      fetch: httpFetch,
      clock: systemClock,
      random: () => 0,
    });
    await trust.open();
    this.updater = new Updater({
      directory,
      ...identity,
      trust: targetTrust(trust),
      facts: TEST_FACTS,
      packages: this.packages,
      bandwidth: this.bandwidth,
      fetch: httpFetch,
      clock: systemClock,
      random: () => 0,
      log: silent,
      selfTest: (candidate, signal) => this.#selfTest(candidate, signal),
      activate: (target) => this.#activate(target),
      running: () =>
        this.running === undefined ? undefined : { packageSha256: this.running, variant: "fp32" },
      emit: (event) => {
        if (event.type === "deployment") this.events.push(event);
      },
      onChange: () => this.#changed(),
      onCorrupt: () => undefined,
      pollMs: 5,
      ...updater,
    });
    await this.updater.load();
    this.startedWith = this.updater.toRun?.packageSha256;
    this.running = this.startedWith;
    await this.updater.resume();
    return this;
  }

  async stop(): Promise<void> {
    await this.updater.stop();
    await this.bandwidth.close();
  }

  #changed(): void {
    const waiting = this.updater.deployment?.waiting;
    if (waiting && waiting.reason !== this.waits.at(-1)?.reason) this.waits.push(waiting);
  }

  #selfTest(candidate: PackageToRun, signal: AbortSignal): Promise<SelfTest> {
    if (!this.selfTests) return Promise.resolve({ ...this.selfTest });
    const options = { workingDirectory: this.#options.directory, env: {}, log };
    return inScratchHost(options, { kind: "self_test", package: candidate, threadCount: 1 }, 30_000, signal);
  }

  async #activate(target: PackageToRun | undefined): Promise<Activation | undefined> {
    if (this.activationError) throw this.activationError;
    await this.beforeActivation(target?.packageSha256);
    this.activated.push(target?.packageSha256);
    this.running = target?.packageSha256;
    if (!target) return undefined;
    const origin = { model: "brightness", version: 1, packageSha256: target.packageSha256, signalNames: [] };
    // Predictions come when the swap is done, as long as the device predicts.
    const timer = setInterval(() => {
      if (this.predicting) this.updater.notePredictions(target.packageSha256, 10, 10);
    }, 5);
    setTimeout(() => clearInterval(timer), 3_000).unref();
    const where = { variant: "fp32", executionProvider: "cpu" };
    return { origin, ...where, loadMs: 1, swapGapMs: 0, framesDroppedDuringSwap: 0 };
  }

  follow(assignment: Assignment, revision = 1): Promise<void> {
    return this.updater.follow([assignment], revision);
  }

  states(deployment = "d2"): string[] {
    return this.events.filter((event) => event.deployment === deployment).map(({ state }) => state);
  }
  last(): DeploymentEvent | undefined {
    return this.events.at(-1);
  }
  async settled(deployment?: string): Promise<DeploymentEvent> {
    await until(() => {
      const last = this.last();
      return (
        last !== undefined && SETTLED.has(last.state) && (deployment ?? last.deployment) === last.deployment
      );
    }, `the deployment ends, it is ${this.last()?.state}`);
    return this.last()!;
  }
}
