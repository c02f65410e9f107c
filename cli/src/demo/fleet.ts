import { readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { FieldloopError, type DeviceDetail } from "@fieldloop/protocol";
import { FleetClient } from "../client.js";
import { ChildProgram } from "./child.js";

/** One agent of the demo: its device id, what it watches, and the model it is to run. */
export interface DemoDevice {
  readonly device: string;
  readonly source: string;
  readonly model: string;
  readonly tags: Readonly<Record<string, string>>;
}

export const DEMO_DEVICES: readonly DemoDevice[] = [
  {
    device: "cam-1",
    source: "simulator:parts?seed=11&fps=15&feedback=1",
    model: "parts",
    tags: { site: "lyon", line: "a" },
  },
  {
    device: "cam-2",
    source: "simulator:parts?seed=12&fps=15&feedback=1",
    model: "parts",
    tags: { site: "lyon", line: "b" },
  },
  {
    device: "cam-3",
    source: "simulator:parts?seed=13&fps=15&feedback=1",
    model: "parts",
    tags: { site: "turin", line: "a" },
  },
  {
    device: "vib-1",
    source: "simulator:bearing?seed=14&feedback=1",
    model: "bearing",
    tags: { site: "turin", line: "a" },
  },
];
/** The two cameras whose light changes and whose lens gets dirty. */
export const CHANGED_CAMERAS: readonly string[] = ["cam-1", "cam-2"];

const START_TIMEOUT_MS = 30_000;

/** The demo's server and agents as real processes, each with a log file and a data folder of its own. */
export class DemoFleet {
  readonly #folder: string;
  readonly #agents = new Map<string, { program: ChildProgram; localUrl: string }>();
  #server: ChildProgram | undefined;
  #client: FleetClient | undefined;
  #token = "";

  constructor(folder: string) {
    this.#folder = folder;
  }

  get client(): FleetClient {
    if (!this.#client) throw new FieldloopError("conflict", "Use demo fleet: the server was not started");
    return this.#client;
  }

  get consoleUrl(): string {
    return `${this.client.url}/#token=${this.#token}`;
  }

  /** Starts a server on an empty data folder; nothing of an earlier demo is kept. */
  async startServer(): Promise<void> {
    rmSync(this.#folder, { recursive: true, force: true });
    const [httpPort, mqttPort] = [await portNear(7300), await portNear(7301)];
    const data = join(this.#folder, "server");
    this.#server = new ChildProgram({
      name: "fleet server",
      args: [
        "server",
        "--data",
        data,
        "--http-port",
        String(httpPort),
        "--mqtt-port",
        String(mqttPort),
        "--json",
      ],
      logPath: join(this.#folder, "logs", "server.log"),
    });
    const listening = await this.#server.event("listening", START_TIMEOUT_MS);
    this.#token = readFileSync(join(data, "admin-token"), "utf8").trim();
    this.#client = new FleetClient(
      { url: String(listening.httpUrl), token: this.#token },
      { timeoutMs: 60_000 },
    );
  }

  /** Enrols and starts one agent. */
  async startAgent(device: DemoDevice): Promise<void> {
    const { token } = await this.client.post<{ token: string }>("/api/v1/enrolment-tokens", {
      ttlSeconds: 120,
      uses: 1,
    });
    const tags = Object.entries(device.tags).flatMap(([key, value]) => ["--tag", `${key}=${value}`]);
    await this.#run(device, device.source, ["--server", this.client.url, "--enroll", token, ...tags]);
  }

  /** Starts an agent that was stopped, from what it kept; the changed cameras still see what they saw. */
  async resumeAgent(device: DemoDevice): Promise<void> {
    const changed = CHANGED_CAMERAS.includes(device.device);
    await this.#run(device, changed ? `${device.source}&condition=degraded` : device.source, []);
  }

  async #run(device: DemoDevice, source: string, enrolment: readonly string[]): Promise<void> {
    const state = join(this.#folder, "agents", device.device);
    const program = new ChildProgram({
      name: `agent ${device.device}`,
      args: [
        "agent",
        "--name",
        device.device,
        "--state",
        state,
        "--source",
        source,
        "--port",
        "0",
        "--json",
        ...enrolment,
      ],
      logPath: join(this.#folder, "logs", `${device.device}.log`),
    });
    const started = await program.event("started", START_TIMEOUT_MS);
    this.#agents.set(device.device, { program, localUrl: String(started.localUrl) });
  }

  /** Calls an agent's local API, as the application on the device would; undefined where it knows no such thing. */
  async local<Result>(device: string, path: string, body?: unknown): Promise<Result | undefined> {
    const agent = this.#agents.get(device);
    if (!agent) throw new FieldloopError("not_found", `Call local API: no agent "${device}"`);
    const response = await fetch(agent.localUrl + path, {
      signal: AbortSignal.timeout(10_000),
      ...(body === undefined
        ? {}
        : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    if (response.status === 404) return undefined;
    if (!response.ok) {
      throw new FieldloopError(
        "unavailable",
        `Call local API of "${device}": ${path} answered ${response.status}: ${(await response.text()).slice(0, 200)}`,
      );
    }
    return (await response.json()) as Result;
  }

  detail(device: string): Promise<DeviceDetail> {
    return this.client.get<DeviceDetail>(`/api/v1/devices/${device}`);
  }

  /** @throws FieldloopError `unavailable` with the last lines of a program that ended by itself */
  assertRunning(): void {
    for (const program of [this.#server, ...[...this.#agents.values()].map((agent) => agent.program)]) {
      if (program && !program.running)
        throw new FieldloopError(
          "unavailable",
          `Run demo: the ${program.name} ended by itself:\n${program.tail}`,
        );
    }
  }

  async stopAgents(): Promise<void> {
    await Promise.all([...this.#agents.values()].map(({ program }) => program.stop()));
    this.#agents.clear();
  }

  async stop(): Promise<void> {
    await this.stopAgents();
    await this.#server?.stop();
    this.#server = undefined;
  }
}

/** The usual port where it is free, so that a bookmark keeps working; any free one otherwise. */
async function portNear(wanted: number): Promise<number> {
  return (await isFree(wanted)) ? wanted : 0;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}
