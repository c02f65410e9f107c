import { spawn, spawnSync } from "node:child_process";
import {
  downTopic,
  encodeMessage,
  upTopic,
  type DeviceDetail,
  type EnrolResponse,
} from "@fieldloop/protocol";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Api } from "../kit/api.js";
import { ServerProcess } from "../kit/server-process.js";
import { until } from "../kit/wait.js";
import { predictionBatch } from "../kit/wire-device.js";

/** Clients that nobody here wrote: those of the Debian package mosquitto-clients. */
const missing = ["mosquitto_pub", "mosquitto_sub"].find(
  (program) => spawnSync(program, ["--version"]).error !== undefined,
);
if (missing) process.stdout.write(`isolation by mosquitto's clients: skipped, ${missing} is not installed\n`);

interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

describe.skipIf(missing)(
  `unmodified mosquitto_pub and mosquitto_sub${missing ? ` (${missing} is not installed)` : ""}`,
  () => {
    let server: ServerProcess;
    let admin: Api;
    let a: EnrolResponse;
    let b: EnrolResponse;
    let dir: string;
    let file: string;

    beforeAll(async () => {
      server = await ServerProcess.start();
      admin = new Api(server.httpUrl, server.adminToken);
      a = await admin.enrol("device-a");
      b = await admin.enrol("device-b");
      dir = await mkdtemp(join(tmpdir(), "fieldloop-mosquitto-"));
      file = join(dir, "batch.cbor");
      await writeFile(file, predictionBatch());
    });
    afterAll(async () => {
      await server.end();
      await rm(dir, { recursive: true, force: true });
    });

    const login = (identity: EnrolResponse, id = identity.device): string[] => [
      "-h",
      "127.0.0.1",
      "-p",
      String(server.mqttPort),
      "-V",
      "mqttv311",
      "-i",
      id,
      "-u",
      id,
      "-P",
      identity.credential,
    ];
    const publish = (identity: EnrolResponse, topic: string, ...more: string[]): Promise<Ended> =>
      run("mosquitto_pub", [...login(identity), "-t", topic, "-q", "1", "-f", file, ...more]);
    /** Everything that arrives within two seconds, or `count` messages. */
    const subscribe = (identity: EnrolResponse, filters: string[], count = 10): Promise<Ended> =>
      run("mosquitto_sub", [
        ...login(identity),
        ...filters.flatMap((filter) => ["-t", filter]),
        "-q",
        "1",
        "-v",
        "-W",
        "2",
        "-C",
        String(count),
      ]);
    const total = async (device: string): Promise<number> =>
      (await admin.ok<DeviceDetail>("GET", `/api/v1/devices/${device}`)).predictionsTotal;

    it("publishes on the device's own topic: what it sends is stored", async () => {
      expect((await publish(a, upTopic("device-a", "predictions"))).code).toBe(0);
      await until("the batch is stored", async () => (await total("device-a")) === 10);
    });

    it("a presence that is retained, and a last will of the device's own", async () => {
      await writeFile(
        join(dir, "online"),
        encodeMessage("presence", { online: true, boot: 1, agentVersion: "m" }),
      );
      const ended = await run("mosquitto_pub", [
        ...login(a),
        "-t",
        upTopic("device-a", "presence"),
        "-q",
        "1",
        "-r",
        "-f",
        join(dir, "online"),
      ]);
      expect(ended.code).toBe(0);
      await until(
        "the device is online",
        async () => (await admin.ok<DeviceDetail>("GET", "/api/v1/devices/device-a")).online,
      );
    });

    it("subscribes to the device's own: its desired state comes", async () => {
      const { stdout } = await subscribe(a, ["fieldloop/1/device-a/down/#"], 1);
      expect(stdout.toString("latin1")).toContain(downTopic("device-a", "desired"));
    });

    it.each([
      ["predictions", []],
      ["event", []],
      ["presence", ["-r"]],
      ["state", ["-r"]],
    ] as const)("publishes on B's up/%s: nothing of it arrives", async (kind, more) => {
      await publish(a, upTopic("device-b", kind), ...more);
      await publish(a, upTopic("device-a", "predictions"));
      expect(await admin.ok<DeviceDetail>("GET", "/api/v1/devices/device-b")).toMatchObject({
        predictionsTotal: 0,
        online: false,
        lastSeen: null,
        state: null,
      });
    });

    it("subscribes everywhere else: nothing arrives, whatever B says meanwhile", async () => {
      // prettier-ignore
      const filters = [
        "#",
        "fieldloop/#",
        "fieldloop/1/device-b/#",
        "fieldloop/1/device-b/down/#",
        "$SYS/#",
        "$share/g/fieldloop/1/+/up/#",
        "+/+/+/+/+",
      ];
      // A device for each: of one client id the broker keeps one connection.
      const spies = await Promise.all(filters.map((_, at) => admin.enrol(`spy-${at}`)));
      const listening = Promise.all(filters.map((filter, at) => subscribe(spies[at]!, [filter])));
      await until(
        "every subscription was refused",
        () => server.logged({ message: "subscription refused" }).length >= filters.length,
      );
      await publish(b, upTopic("device-b", "predictions"));
      await until("B's batch is stored", async () => (await total("device-b")) === 10);
      for (const { stdout } of await listening) expect(stdout.toString("latin1")).toBe("");
    });

    it("connects with another's id, another's credential or none: refused", async () => {
      const topic = upTopic("device-b", "predictions");
      for (const args of [
        login(a, "device-b"),
        login({ ...a, credential: b.credential }),
        login(a).slice(0, 8),
      ]) {
        const ended = await run("mosquitto_pub", [...args, "-t", topic, "-q", "1", "-f", file]);
        expect(ended.code).not.toBe(0);
        expect(ended.stderr).toMatch(/not authori[sz]ed|bad user name|refused/i);
      }
      expect(await total("device-b")).toBe(10);
    });
  },
);

function run(program: string, args: readonly string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    const stdout: Buffer[] = [];
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString("utf8")));
    // A client that is refused after its CONNECT tries again for ever.
    const force = setTimeout(() => child.kill("SIGKILL"), 3_000);
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(force);
      resolve({ code, stdout: Buffer.concat(stdout), stderr });
    });
  });
}
