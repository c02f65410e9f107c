import { expect } from "vitest";
import type { DeviceDetail, ErrorCode, Role } from "@fieldloop/protocol";
import { Api } from "../kit/api.js";
import { ServerProcess, type LogLine } from "../kit/server-process.js";
import { tinyPng } from "../kit/tiny-package.js";
import { until } from "../kit/wait.js";
import { WireDevice, predictionBatch, sampleMessage, type DeviceIdentity } from "../kit/wire-device.js";

const SAMPLE = "smp_control0001";
const TAGS = { site: "control" };

/**
 * One spawned server that every row attacks, and beside the attacker a control device whose predictions and sample must stay: after each
 * row the process is alive, a new message of the control device is acknowledged, and everything that it ever sent is there.
 */
export class Stage {
  readonly server: ServerProcess;
  readonly admin: Api;
  readonly control: WireDevice;
  readonly controlIdentity: DeviceIdentity;
  readonly #tokens: Readonly<Record<Role, string>>;
  readonly #image = tinyPng();
  readonly #rows = new Map<string, number>();
  #batches = 0;

  private constructor(
    server: ServerProcess,
    admin: Api,
    tokens: Record<Role, string>,
    identity: DeviceIdentity,
    control: WireDevice,
  ) {
    this.server = server;
    this.admin = admin;
    this.#tokens = tokens;
    this.controlIdentity = identity;
    this.control = control;
  }

  static async start(): Promise<Stage> {
    const server = await ServerProcess.start({ logLevel: "debug" });
    const admin = new Api(server.httpUrl, server.adminToken);
    const tokens: Record<Role, string> = { viewer: "", labeler: "", operator: "", admin: server.adminToken };
    for (const role of ["viewer", "labeler", "operator"] as const) {
      const made = await admin.ok<{ token: string }>("POST", "/api/v1/tokens", { name: `the-${role}`, role });
      tokens[role] = made.token;
    }
    const identity = await admin.enrol("control", TAGS);
    const control = await WireDevice.connect(server.mqttPort, identity);
    const stage = new Stage(server, admin, tokens, identity, control);
    await control.publish("sample", sampleMessage(SAMPLE, stage.#image));
    await control.acked("sample", 1, 1);
    await stage.intact();
    return stage;
  }

  as(role: Role): Api {
    return this.admin.as(this.#tokens[role]);
  }

  count(group: string): void {
    this.#rows.set(group, (this.#rows.get(group) ?? 0) + 1);
  }

  /** Nothing lost, and a sound message and request still work. */
  async intact(): Promise<void> {
    const seq = ++this.#batches;
    await this.control.publish("predictions", predictionBatch({ seq }));
    await this.control.acked("predictions", 1, seq);
    const [detail, sample] = await Promise.all([
      this.admin.ok<DeviceDetail>("GET", "/api/v1/devices/control"),
      this.admin.send("GET", `/api/v1/samples/${SAMPLE}/payload`),
    ]);
    expect({ predictions: detail.predictionsTotal, tags: detail.tags, suspended: detail.suspended }).toEqual({
      predictions: seq * 10,
      tags: TAGS,
      suspended: false,
    });
    expect([sample.status, sample.bytes.equals(this.#image)]).toEqual([200, true]);
    expect(this.server.alive).toBe(true);
  }

  /** Waits for a line of the server's log that was written since `from`. */
  logged(fields: LogLine, from: number): Promise<LogLine> {
    return until(
      `the server logs ${JSON.stringify(fields)}; it logged ${JSON.stringify(this.server.log.slice(from)).slice(0, 600)}`,
      () =>
        this.server.log
          .slice(from)
          .find((line) => Object.entries(fields).every(([key, value]) => line[key] === value)),
      { timeoutMs: 4_000, everyMs: 3 },
    );
  }

  async setAside(device: string, kind: string, code: ErrorCode, from: number): Promise<void> {
    const line = await this.logged({ message: "message set aside", device, kind }, from);
    expect(line.code).toBe(code);
  }

  /** One counter of `/metrics`. */
  async metric(name: string, kind: string): Promise<number> {
    const { text } = await this.admin.send("GET", "/metrics");
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${name}{kind="${kind}"}`));
    return Number(line?.split(" ").at(-1) ?? Number.NaN);
  }

  /** Ends the server, prints the number of rows, and looks for what no row asked about: failures without a code. */
  async end(): Promise<void> {
    const { log, noise } = this.server;
    const uncoded = log.filter((line) => line.code === "internal" || line.message === "ingest commit failed");
    this.control.wire.drop();
    const { code } = await this.server.end();
    const total = [...this.#rows.values()].reduce((sum, count) => sum + count, 0);
    const groups = [...this.#rows].map(([group, count]) => `${group} ${count}`).join(", ");
    process.stdout.write(`bad-input table: ${total} rows (${groups})\n`);
    expect(uncoded).toEqual([]);
    expect(noise.filter((line) => /unhandled|TypeError|at .*\.js:\d+/i.test(line))).toEqual([]);
    expect(code).toBe(0);
  }
}
