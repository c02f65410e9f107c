import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  manifestFiles,
  type DeviceDetail,
  type DeviceState,
  type ModelVersion,
  type Page,
  type RolloutDeviceView,
  type RolloutView,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { ChildProgram, FleetClient } from "fieldloop";
import { holdersOf, isAlive } from "./processes.js";
import { freePort } from "./proxy.js";
import { environment } from "./server-process.js";
import { until } from "./wait.js";

const START_TIMEOUT_MS = 60_000;
const programs = new Set<ChildProgram>();

/** Ends whatever a test that failed left running. */
export async function endPrograms(): Promise<void> {
  for (const program of programs) program.kill("SIGKILL");
  await Promise.all([...programs].map((program) => program.exited));
  programs.clear();
}

function spawn(options: ConstructorParameters<typeof ChildProgram>[0]): ChildProgram {
  const program = new ChildProgram(options);
  programs.add(program);
  void program.exited.then(() => programs.delete(program));
  return program;
}

/** A folder of its own for one fleet, below the system's temporary one. */
export function scratchFolder(name: string): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), `fieldloop-${name}-`));
  // Logs and databases of a failure can be kept to look at.
  const kept = process.env["FIELDLOOP_TEST_KEEP"] === "1";
  return {
    path,
    remove: () => (kept ? undefined : rmSync(path, { recursive: true, force: true, maxRetries: 5 })),
  };
}

export interface ServerProgramOptions {
  readonly folder: string;
  /** What devices are told to connect to. */
  readonly publicMqttUrl?: string;
}

/** `fieldloop server` as a process that can be killed and comes back on the same data and ports. */
export class ServerProgram {
  readonly dataDir: string;
  readonly httpPort: number;
  readonly mqttPort: number;
  readonly #options: ServerProgramOptions;
  #program: ChildProgram | undefined;
  #client: FleetClient | undefined;

  private constructor(options: ServerProgramOptions, httpPort: number, mqttPort: number) {
    this.#options = options;
    this.dataDir = join(options.folder, "server");
    this.httpPort = httpPort;
    this.mqttPort = mqttPort;
  }

  static async start(options: ServerProgramOptions): Promise<ServerProgram> {
    const server = new ServerProgram(options, await freePort(), await freePort());
    await server.start();
    return server;
  }

  get client(): FleetClient {
    return this.#client!;
  }
  get pid(): number {
    return this.#program!.pid;
  }
  get url(): string {
    return `http://127.0.0.1:${this.httpPort}`;
  }

  async start(): Promise<void> {
    const { folder, publicMqttUrl } = this.#options;
    this.#program = spawn({
      name: "server",
      args: [
        ...["server", "--data", this.dataDir, "--http-port", String(this.httpPort)],
        ...["--mqtt-port", String(this.mqttPort), "--log-level", "warn", "--json"],
        ...(publicMqttUrl === undefined ? [] : ["--public-mqtt-url", publicMqttUrl]),
      ],
      logPath: join(folder, "server.log"),
      env: environment(),
    });
    await this.#program.event("listening", START_TIMEOUT_MS);
    const token = readFileSync(join(this.dataDir, "admin-token"), "utf8").trim();
    this.#client = new FleetClient({ url: this.url, token });
  }

  async kill(): Promise<void> {
    this.#program!.kill("SIGKILL");
    await this.#program!.exited;
  }

  async stop(): Promise<void> {
    await this.#program?.stop();
  }

  /** Uploads and publishes a package. */
  async publish(made: ModelPackage): Promise<ModelVersion> {
    for (const { file, sha256 } of manifestFiles(made.manifest)) {
      await this.client.putArtifact(join(made.dir, file), sha256);
    }
    await this.client.putArtifact(join(made.dir, "manifest.json"), made.packageSha256);
    return this.client.post(`/api/v1/models/${made.manifest.model}/versions`, {
      manifestSha256: made.packageSha256,
    });
  }

  /** Starts a rollout of one wave that looks at nothing but whether the devices got there. */
  rollOut(
    version: { readonly model: string; readonly version: number },
    devices: readonly string[],
    probation: { readonly seconds: number; readonly predictions: number } = { seconds: 0, predictions: 10 },
  ): Promise<RolloutView> {
    return this.client.post("/api/v1/rollouts", {
      change: { kind: "package", model: version.model, version: version.version },
      target: { devices },
      waves: [{ percent: 100 }],
      gate: { soakSeconds: 0, predictionsMin: 0, accuracyDropMax: null, latencyRatioMax: null },
      probation,
      forceReason: "a test of faults on the way to the device",
    });
  }

  /** Waits until the rollout ended or paused, and says how. */
  async settled(rollout: string, timeoutMs = 30_000): Promise<RolloutView> {
    let last: RolloutView | undefined;
    try {
      return await until(
        `rollout ${rollout} settles`,
        async () => {
          last = await this.client.get<RolloutView>(`/api/v1/rollouts/${rollout}`);
          return ["running", "scheduled", "rolling_back"].includes(last.state) ? undefined : last;
        },
        { timeoutMs, everyMs: 100 },
      );
    } catch (error) {
      throw new Error(`Rollout ${rollout}: ${last?.state} ${JSON.stringify(last?.waves)}`, { cause: error });
    }
  }

  /** Its devices in the order of the plan. */
  async rolloutDevices(rollout: string): Promise<RolloutDeviceView[]> {
    const page = await this.client.get<Page<RolloutDeviceView>>(`/api/v1/rollouts/${rollout}/devices`);
    return page.items;
  }

  device(device: string): Promise<DeviceDetail> {
    return this.client.get(`/api/v1/devices/${device}`);
  }

  async enrolmentToken(): Promise<string> {
    const { token } = await this.client.post<{ token: string }>("/api/v1/enrolment-tokens", {
      ttlSeconds: 300,
      uses: 1,
    });
    return token;
  }
}

export interface AgentProgramOptions {
  readonly folder: string;
  readonly device: string;
  readonly source: string;
  readonly args?: readonly string[];
}

/** What `/v1/state` on the device says: the reported state, and which process is the host. */
export type LocalState = DeviceState & { readonly hostPid: number | null };

/** `fieldloop agent` as a process that can be killed and comes back on the same state folder. */
export class AgentProgram {
  readonly device: string;
  readonly stateDir: string;
  readonly #options: AgentProgramOptions;
  #program: ChildProgram | undefined;
  #localUrl = "";
  #boot = 0;

  constructor(options: AgentProgramOptions) {
    this.#options = options;
    this.device = options.device;
    this.stateDir = join(options.folder, options.device);
  }

  get pid(): number {
    return this.#program!.pid;
  }
  get running(): boolean {
    return this.#program?.running === true;
  }
  get localUrl(): string {
    return this.#localUrl;
  }
  get boot(): number {
    return this.#boot;
  }
  /** What it printed last, for a message about a failure. */
  get tail(): string {
    return this.#program?.tail ?? "";
  }
  /** Inference hosts that run frames right now: such a one holds this file open. */
  hosts(): number[] {
    return holdersOf(join(this.stateDir, "frame.mark"), join(this.stateDir, "empty")).filter(isAlive);
  }

  /** Starts it; `enrol` is wanted the first time. */
  async start(enrol?: { readonly server: string; readonly token: string }): Promise<void> {
    const { device, source, folder, args = [] } = this.#options;
    this.#program = spawn({
      name: device,
      args: [
        ...["agent", "--name", device, "--state", this.stateDir, "--source", source, "--port", "0"],
        ...["--threads", "1", "--log-level", "info", "--json", ...args],
        ...(enrol ? ["--server", enrol.server, "--enroll", enrol.token] : []),
      ],
      logPath: join(folder, `${device}.log`),
      env: environment(),
    });
    const started = await this.#program.event("started", START_TIMEOUT_MS);
    this.#localUrl = String(started["localUrl"]);
    this.#boot = Number(started["boot"]);
  }

  async kill(): Promise<void> {
    this.#program!.kill("SIGKILL");
    await this.#program!.exited;
  }

  async stop(): Promise<void> {
    await this.#program?.stop();
  }

  async state(): Promise<LocalState> {
    const response = await fetch(`${this.#localUrl}/v1/state`, { signal: AbortSignal.timeout(5_000) });
    return (await response.json()) as LocalState;
  }

  /** One value of `/metrics`, by its name with labels. */
  async metric(name: string): Promise<number> {
    const response = await fetch(`${this.#localUrl}/metrics`, { signal: AbortSignal.timeout(5_000) });
    const line = (await response.text()).split("\n").find((candidate) => candidate.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1) ?? Number.NaN);
  }

  /** Waits until it made so many more predictions than at the time of the call. */
  async predicts(count: number, timeoutMs = 20_000): Promise<void> {
    const before = (await this.state()).counters.predictions;
    await until(
      `${this.device} makes ${count} more predictions`,
      async () => (await this.state()).counters.predictions >= before + count,
      { timeoutMs },
    );
  }

  /** Waits until the server has nearly all that it has to say; the rest goes when it stops. */
  async drained(timeoutMs = 60_000): Promise<void> {
    await until(`${this.device} has sent what it kept`, async () => (await this.state()).spool.records <= 6, {
      timeoutMs,
      everyMs: 100,
    });
  }
}
