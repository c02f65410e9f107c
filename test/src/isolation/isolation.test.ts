import {
  UP_KINDS,
  downTopic,
  encodeMessage,
  upTopic,
  type DeviceDetail,
  type EnrolResponse,
  type UpKind,
} from "@fieldloop/protocol";
import type { IConnectPacket } from "mqtt-packet";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Api } from "../kit/api.js";
import { WireClient } from "../kit/mqtt-wire.js";
import { ServerProcess } from "../kit/server-process.js";
import { sha256Of } from "../kit/tiny-package.js";
import { until } from "../kit/wait.js";
import { WireDevice, connectFields, predictionBatch, sampleMessage } from "../kit/wire-device.js";

/**
 * Two devices enrolled over HTTP on a spawned server. What one may do to the other is judged by what arrives: at the other device, and in
 * what the fleet believes of it. Return codes alone prove nothing; a broker may grant a subscription that it then leaves unserved, or the
 * other way round.
 */
describe("isolation of devices", () => {
  let server: ServerProcess;
  let admin: Api;
  let a: EnrolResponse;
  let b: EnrolResponse;
  let victim: WireDevice;
  let batches = 0;
  const open: WireClient[] = [];

  beforeAll(async () => {
    server = await ServerProcess.start();
    admin = new Api(server.httpUrl, server.adminToken);
    a = await admin.enrol("device-a");
    b = await admin.enrol("device-b", { site: "b" });
    victim = await WireDevice.connect(server.mqttPort, b);
    const presence = encodeMessage("presence", { online: true, boot: 1, agentVersion: "0.1.0" });
    await victim.publish("presence", presence, { retain: true });
    await victim.publish("sample", sampleMessage("smp_deviceb001", Buffer.from("b's own bytes")));
    await victim.acked("sample", 1, 1);
    await untouched();
  });
  afterEach(async () => {
    for (const client of open.splice(0)) client.drop();
    await untouched();
  });
  afterAll(async () => {
    victim.wire.drop();
    expect((await server.end()).code).toBe(0);
  });

  /** B is as it made itself: connected, its own presence, its own predictions, nothing more, and nothing came to it that is not its. */
  async function untouched(): Promise<void> {
    const seq = ++batches;
    await victim.publish("predictions", predictionBatch({ seq }));
    await victim.acked("predictions", 1, seq);
    const detail = await admin.ok<DeviceDetail>("GET", "/api/v1/devices/device-b");
    expect(detail).toMatchObject({
      online: true,
      predictionsTotal: seq * 10,
      state: null,
      warnings: [],
      tags: { site: "b" },
    });
    expect((await admin.ok<{ items: unknown[] }>("GET", "/api/v1/devices/device-b/events")).items).toEqual(
      [],
    );
    const { items } = await admin.ok<{ items: { sample: string }[] }>(
      "GET",
      "/api/v1/samples?device=device-b",
    );
    expect(items.map(({ sample }) => sample)).toEqual(["smp_deviceb001"]);
    const topics = new Set(victim.wire.publishes().map(({ topic }) => topic));
    expect([...topics].sort()).toEqual([downTopic("device-b", "ack"), downTopic("device-b", "desired")]);
    expect(victim.wire.closed).toBe(false);
  }

  async function attacker(options: Partial<IConnectPacket> = {}): Promise<WireClient> {
    const client = await WireClient.open(server.mqttPort);
    open.push(client);
    client.send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clean: true,
      keepalive: 30,
      ...connectFields(a),
      ...options,
    });
    return client;
  }

  async function connected(options: Partial<IConnectPacket> = {}): Promise<WireClient> {
    const client = await attacker(options);
    expect((await client.expect("connack")).returnCode).toBe(0);
    return client;
  }

  /** Sound messages that would be believed if they were B's. */
  function lie(kind: UpKind): Uint8Array {
    const delivery = { boot: 9, seq: 1, prev: 0 };
    switch (kind) {
      case "presence":
        return encodeMessage("presence", { online: false, boot: 9, agentVersion: "evil" });
      case "predictions":
        return predictionBatch(delivery);
      case "sample":
        return sampleMessage("smp_forged0001", Buffer.from("forged"), delivery);
      case "state":
      case "profile":
      case "event":
        return encodeMessage("event", {
          ...delivery,
          time: 1,
          data: { type: "warning", code: "storage_full", severity: "error", message: "forged", active: true },
        });
    }
  }

  describe.each([0, 1] as const)("A publishes at QoS %i on B's", (qos) => {
    it.each(UP_KINDS.flatMap((kind) => [[kind, false] as const, [kind, true] as const]))(
      "up/%s (retained: %s)",
      async (kind, retain) => {
        const client = await connected();
        client.send({
          cmd: "publish",
          topic: upTopic("device-b", kind),
          payload: Buffer.from(lie(kind)),
          qos,
          retain,
          dup: false,
          ...(qos === 0 ? {} : { messageId: 1 }),
        });
        await client.expectClosed();
      },
    );
    it.each(["desired", "command", "ack"] as const)("down/%s", async (kind) => {
      const client = await connected();
      const messageId = qos === 0 ? {} : { messageId: 1 };
      client.send({
        cmd: "publish",
        topic: downTopic("device-b", kind),
        payload: "forged",
        qos,
        retain: kind === "desired",
        dup: false,
        ...messageId,
      });
      await client.expectClosed();
    });
  });

  it.each([
    ["B's presence", upTopic("device-b", "presence"), true],
    ["B's event", upTopic("device-b", "event"), false],
    ["B's command", downTopic("device-b", "command"), false],
    ["its own event", upTopic("device-a", "event"), false],
    ["everybody", "fieldloop/1/+/up/presence", true],
    ["the broker's topics", "$SYS/broker", false],
  ])("A leaves a last will on %s", async (_name, topic, retain) => {
    const will = { topic, payload: Buffer.from(lie("presence")), qos: 1, retain } as const;
    const client = await attacker({ will });
    const connack = await client.expect("connack").catch(() => undefined);
    expect(connack?.returnCode ?? 2).toBeGreaterThan(0);
    client.drop();
  });

  it.each([
    "#",
    "+/#",
    "+/+/+/+/+",
    "fieldloop/#",
    "fieldloop/1/#",
    "fieldloop/1/+/down/#",
    "fieldloop/1/+/up/#",
    "fieldloop/1/device-b/#",
    "fieldloop/1/device-b/down/#",
    "fieldloop/1/device-b/down/desired",
    "fieldloop/1/device-b/down/command",
    "fieldloop/1/device-b/down/ack",
    "fieldloop/1/device-b/up/#",
    "fieldloop/+/device-a/down/#",
    "fieldloop/1/device-a/+/#",
    "fieldloop/1/device-a/up/#",
    "fieldloop/1/device-a/down/../../device-b/down/#",
    "fieldloop/1/device-a/down/#/..",
    "$share/group/#",
    "$share/group/fieldloop/1/+/up/#",
    "$share/group/fieldloop/1/device-b/down/#",
    "$share/group/fieldloop/1/device-a/down/#",
    "$queue/fieldloop/1/device-b/down/#",
    "$SYS/#",
    "$SYS/+/clients",
    "/#",
    "",
  ])("A subscribes to %j and gets nothing of B's", async (filter) => {
    const client = await connected();
    const topic = Buffer.from(filter);
    const body = Buffer.concat([
      Buffer.from([0, 1, topic.length >> 8, topic.length & 0xff]),
      topic,
      Buffer.from([1]),
    ]);
    client.sendRaw(Buffer.concat([Buffer.from([0x82, body.length]), body]));
    await until(
      "the subscription is answered",
      () => client.closed || client.received.some((packet) => packet.cmd === "suback"),
    );
    // Retained messages would come at once; a command and an acknowledgement for B are made now.
    await admin.ok("POST", "/api/v1/devices/device-b/commands", { kind: "report_state" });
    await until("B got its command", () =>
      victim.wire.publishes().some(({ topic: name }) => name === downTopic("device-b", "command")),
    );
    victim.wire.received.splice(
      0,
      victim.wire.received.length,
      ...victim.wire.received.filter(
        (packet) => packet.cmd !== "publish" || !packet.topic.endsWith("/command"),
      ),
    );
    await victim.publish("predictions", predictionBatch({ seq: ++batches }));
    await victim.acked("predictions", 1, batches);
    if (!client.closed) await client.settle().catch(() => undefined);
    expect(client.publishes()).toEqual([]);
    const suback = client.received.find((packet) => packet.cmd === "suback");
    if (suback) expect(suback.granted).toEqual([128]);
  });

  it("A gets its own, and with it nothing of B's", async () => {
    const client = await connected();
    expect(await client.subscribe({ "fieldloop/1/device-a/down/#": 1 })).toEqual([1]);
    await until("A's desired state", () => client.publishes().length > 0);
    await client.publish(upTopic("device-a", "predictions"), predictionBatch());
    await until("A's acknowledgement", () =>
      client.publishes().some(({ topic }) => topic === downTopic("device-a", "ack")),
    );
    expect(client.publishes().every(({ topic }) => topic.startsWith("fieldloop/1/device-a/down/"))).toBe(
      true,
    );
  });

  it("A publishes at QoS 2, on its own topic and on B's", async () => {
    for (const device of ["device-a", "device-b"]) {
      const client = await connected();
      client.send({
        cmd: "publish",
        topic: upTopic(device, "predictions"),
        payload: Buffer.from(lie("predictions")),
        qos: 2,
        messageId: 1,
        retain: false,
        dup: false,
      });
      await client.expectClosed();
      expect(client.received.filter((packet) => packet.cmd === "pubrec")).toEqual([]);
    }
  });

  /** [what, client id, user name, password], each of which must fail; B stays connected all the while. */
  const identities = [
    ["B's id, A's credential", "b", "b", "a"],
    ["B's client id, A's user name and credential", "b", "a", "a"],
    ["A's client id, B's user name, A's credential", "a", "b", "a"],
    ["A's client id and credential, no user name", "a", undefined, undefined],
    ["A's client id, B's user name and credential", "a", "b", "b"],
    ["no client id", "", "a", "a"],
    ["an unknown client id", "device-c", "a", "a"],
    ["B's id, no password", "b", "b", undefined],
    ["B's id, an empty password", "b", "b", ""],
    ["B's id, its credential cut short", "b", "b", "b-cut"],
    ["B's id, its credential and a byte more", "b", "b", "b-more"],
    ["B's id in capitals", "B", "B", "b"],
    ["the administrator's token", "a", "a", "admin"],
  ] as const;
  it.each(identities)("nobody connects with %s", async (_name, clientId, username, password) => {
    const ids: Record<string, string> = { a: "device-a", b: "device-b", B: "DEVICE-B" };
    const secrets: Record<string, string> = {
      a: a.credential,
      b: b.credential,
      "b-cut": b.credential.slice(0, -1),
      "b-more": `${b.credential}x`,
      admin: server.adminToken,
    };
    const fields: Record<string, unknown> = { clientId: ids[clientId] ?? clientId };
    fields.username = username === undefined ? undefined : ids[username];
    fields.password = password === undefined ? undefined : Buffer.from(secrets[password] ?? password);
    const client = await attacker(fields as Partial<IConnectPacket>);
    const connack = await client.expect("connack").catch(() => undefined);
    expect(connack?.returnCode ?? 4).toBeGreaterThan(0);
    await client.expectClosed();
  });

  it("a suspended device is out at once, cannot come back, cannot download, and is in again when resumed", async () => {
    const client = await connected();
    await admin.ok("PUT", "/api/v1/devices/device-a/suspension", { suspended: true });
    await client.expectClosed();
    const again = await attacker();
    expect((await again.expect("connack")).returnCode).toBe(5);
    const artifact = `/artifacts/sha256/${"0".repeat(64)}`;
    expect((await admin.as(a.credential).send("GET", artifact)).code).toBe("device_suspended");
    await admin.ok("PUT", "/api/v1/devices/device-a/suspension", { suspended: false });
    await connected();
    expect((await admin.as(a.credential).send("GET", artifact)).code).toBe("not_found");
  });

  it("artifacts: with a device's credential, and with nothing else", async () => {
    const bytes = Buffer.from("an artifact");
    const path = `/artifacts/sha256/${sha256Of(bytes)}`;
    await admin.putArtifact(sha256Of(bytes), bytes);
    expect((await admin.as(a.credential).send("GET", path)).bytes.equals(bytes)).toBe(true);
    expect((await admin.as(undefined).send("GET", path)).code).toBe("unauthenticated");
    expect((await admin.as(`${a.credential}x`).send("GET", path)).code).toBe("unauthenticated");
    expect((await admin.as(a.credential.replace("device-a", "device-b")).send("GET", path)).code).toBe(
      "unauthenticated",
    );
    const upload = await admin
      .as(a.credential)
      .send("PUT", `/api/v1/artifacts/sha256/${sha256Of(bytes)}`, { body: bytes });
    expect(upload.code).toBe("forbidden");
  });

  it("a device's credential opens no route of people", async () => {
    const document = await admin.ok<{ paths: Record<string, Record<string, unknown>> }>(
      "GET",
      "/api/openapi.json",
    );
    const open_: string[] = [];
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const method of Object.keys(methods)) {
        // Trading a token needs no credential; signing out is anyone's right.
        if (path === "/api/v1/enrol" || path === "/api/v1/session") continue;
        const real = path.replaceAll(/\{(\w+)\}/g, (_all, name: string) => PARAMETERS[name] ?? "x");
        const answer = await admin
          .as(a.credential)
          .send(method.toUpperCase(), real, method === "get" ? {} : { body: {} });
        if (answer.code !== "forbidden")
          open_.push(`${method} ${path}: ${answer.status} ${answer.code ?? ""}`);
      }
    }
    expect(open_).toEqual([]);
  });
});

const PARAMETERS: Readonly<Record<string, string>> = {
  device: "device-b",
  sample: "smp_deviceb001",
  sha256: "0".repeat(64),
  snapshot: "0".repeat(64),
  version: "1",
};
