import { mkdtemp, readFile, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  DESIRED_TYPE,
  decodeMessage,
  encodeMessage,
  fromHex,
  verify,
  type DeviceDetail,
  type Overview,
  type Page,
  type PredictionView,
  type Proportion,
  type SeriesPoint,
} from "@fieldloop/protocol";
import { afterEach, describe, expect, it } from "vitest";
import {
  BASE_TIME,
  FACTS,
  TestDevice,
  enrol,
  startTestServer,
  until,
  type TestServer,
} from "./kit.test.support.js";

let server: TestServer | undefined;
const devices: TestDevice[] = [];

afterEach(async () => {
  await Promise.all(devices.splice(0).map((device) => device.end()));
  await server?.end();
  server = undefined;
});

async function connect(
  to: TestServer,
  identity: { device: string; credential: string },
): Promise<TestDevice> {
  const device = await TestDevice.connect(to, identity);
  devices.push(device);
  return device;
}

describe("a fleet server", () => {
  it("enrols a device, takes its predictions in, joins feedback and answers", async () => {
    server = await startTestServer();
    const identity = await enrol(server, "cam-1", { site: "lyon" });
    const cam = await connect(server, identity);

    const desired = await until("the desired state", () =>
      cam.received.find(({ topic }) => topic.endsWith("down/desired")),
    );
    expect(desired.retain).toBe(true);
    const keys = identity.fleetKeys.map(({ keyId, publicKey }) => ({ keyId, publicKey: fromHex(publicKey) }));
    const wanted = decodeMessage("desired", verify(DESIRED_TYPE, desired.payload, keys));
    expect(wanted).toMatchObject({ device: "cam-1", revision: 1, assignments: [] });

    await cam.publish(
      "presence",
      encodeMessage("presence", { online: true, boot: 1, agentVersion: "0.1.0" }),
      true,
    );
    await cam.predictions({ seq: 1 });
    await cam.event(1, {
      type: "feedback",
      predictionBoot: 1,
      items: [
        { n: 0, correct: true },
        { n: 1, correct: false },
        { n: 25, correct: true },
      ],
    });
    await cam.predictions({ seq: 2 });
    await cam.predictions({ seq: 3 });
    await until("all acknowledged", () => cam.acked("predictions") === 3 && cam.acked("event") === 1);

    const detail = await server.api.ok<DeviceDetail>("GET", "/api/v1/devices/cam-1");
    expect(detail).toMatchObject({
      online: true,
      health: "ok",
      predictionsTotal: 30,
      tags: { site: "lyon" },
    });
    const accuracy = await server.api.ok<Proportion>("GET", "/api/v1/accuracy?device=cam-1");
    expect(accuracy).toMatchObject({ successes: 2, count: 3 });
    const series = await server.api.ok<Page<SeriesPoint>>(
      "GET",
      `/api/v1/devices/cam-1/series?from=${BASE_TIME}&to=${BASE_TIME + 10_000}&bucketMs=10000`,
    );
    expect(series.items).toMatchObject([{ time: BASE_TIME, count: 30, feedbackCount: 3 }]);
    expect(series.items[0]!.classes).toEqual({ "class 0": 12, "class 1": 9, "class 2": 9 });
    const recent = await server.api.ok<Page<PredictionView>>(
      "GET",
      "/api/v1/devices/cam-1/predictions?limit=30",
    );
    expect(recent.items).toHaveLength(30);
    expect(recent.items.find((view) => view.id === "1-25")?.truth).toBe("class 2");
    const overview = await server.api.ok<Overview>("GET", "/api/v1/overview");
    expect(overview).toMatchObject({
      devices: { total: 1, online: 1, needAttention: 0 },
      predictionsTotal: 30,
    });
    expect(overview.bytesPerPrediction).toBeGreaterThan(5);
    expect(overview.bytesPerPrediction).toBeLessThan(60);
  });

  it("keeps what it acknowledged and repeats its desired states after a restart", async () => {
    server = await startTestServer();
    const identity = await enrol(server, "cam-1");
    const cam = await connect(server, identity);
    await cam.predictions({ seq: 1 });
    await until("acknowledged", () => cam.acked("predictions") === 1);
    await cam.end();
    const { dataDir } = server;
    await server.stop();
    server = await startTestServer({ dataDir });
    expect(server.adminTokenIsNew).toBe(false);
    const again = await connect(server, identity);
    await until("the desired state", () =>
      again.received.find(({ topic }) => topic.endsWith("down/desired")),
    );
    await again.predictions({ seq: 1 });
    await until("acknowledged again", () => again.acked("predictions") === 1);
    expect(server.ingest.counters).toMatchObject({ duplicates: 1, predictions: 0 });
    expect(await server.api.ok<Overview>("GET", "/api/v1/overview")).toMatchObject({ predictionsTotal: 10 });
  });

  it("disconnects a suspended device and refuses it until it is resumed", async () => {
    server = await startTestServer();
    const identity = await enrol(server, "cam-1");
    const cam = await connect(server, identity);
    await server.api.ok("PUT", "/api/v1/devices/cam-1/suspension", { suspended: true });
    await until("disconnected", () => !cam.client.connected);
    await expect(TestDevice.connect(server, identity)).rejects.toThrow(/Not authorized/i);
    await server.api.ok("PUT", "/api/v1/devices/cam-1/suspension", { suspended: false });
    await connect(server, identity);
  });

  it("writes its secrets readable by its user only, and none of them in the database", async () => {
    server = await startTestServer();
    const identity = await enrol(server, "cam-1");
    for (const name of ["admin-token", "fleet-key.json"]) {
      expect((await stat(join(server.dataDir, name))).mode & 0o777).toBe(0o600);
    }
    const { dataDir, adminToken } = server;
    await server.stop();
    const bytes = await readFile(join(dataDir, "fieldloop.db"));
    const secret = identity.credential.split(".").at(-1)!;
    expect(bytes.includes(secret)).toBe(false);
    expect(bytes.includes(adminToken!)).toBe(false);
    server = await startTestServer({ dataDir });
  });

  it("works alone in its folder, and takes over the lock of a process that is gone", async () => {
    server = await startTestServer();
    const { dataDir } = server;
    const lock = join(dataDir, "server.lock");
    await writeFile(lock, String(process.ppid));
    await expect(startTestServer({ dataDir })).rejects.toMatchObject({ code: "database_in_use" });
    // As another container on the same folder would see it: the number is its own.
    await writeFile(lock, String(process.pid));
    await expect(startTestServer({ dataDir })).rejects.toMatchObject({ code: "database_in_use" });
    await server.stop();
    await writeFile(lock, "999999999");
    server = await startTestServer({ dataDir });
  });

  it("leaves nothing open when a port is taken", async () => {
    server = await startTestServer();
    const dataDir = await mkdtemp(join(tmpdir(), "fieldloop-taken-"));
    await expect(startTestServer({ dataDir, httpPort: server.httpPort })).rejects.toMatchObject({
      code: "unavailable",
    });
    await expect(startTestServer({ dataDir, mqttPort: server.mqttPort })).rejects.toMatchObject({
      code: "unavailable",
    });
    const other = await startTestServer({ dataDir });
    await other.end();
  });

  it("lets one of a hundred devices enrol with a token of one use", async () => {
    server = await startTestServer();
    const { token } = await server.api.ok<{ token: string }>("POST", "/api/v1/enrolment-tokens", { uses: 1 });
    const api = server.api.as(undefined);
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => api.send("POST", "/api/v1/enrol", { token, facts: FACTS })),
    );
    const statuses = answers.map((answer) => answer.status);
    expect(statuses.filter((status) => status === 201)).toHaveLength(1);
    expect(statuses.every((status) => [201, 403, 429].includes(status))).toBe(true);
    expect(await server.api.ok<Overview>("GET", "/api/v1/overview")).toMatchObject({ devices: { total: 1 } });
  });
});
