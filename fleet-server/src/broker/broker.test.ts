import { connect as connectTcp, type Socket } from "node:net";
import { FieldloopError, encodeAck } from "@fieldloop/protocol";
import mqtt from "mqtt";
import mqttPacket from "mqtt-packet";
import { afterEach, describe, expect, it } from "vitest";
import { silent, until } from "../kit.test.support.js";
import { Broker, type BrokerOptions } from "./broker.js";
import { matches } from "./retained.js";
import { TokenBucket } from "./token-bucket.js";

const ACK = encodeAck([{ stream: "predictions", boot: 3, seq: 70_000 }]);

let broker: Broker | undefined;
const clients: mqtt.MqttClient[] = [];
const sockets: Socket[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(clients.splice(0).map((client) => client.endAsync(true)));
  await broker?.stop();
  broker = undefined;
});

const DEVICES: BrokerOptions["authorize"] = {
  kind: "devices",
  authenticate: async (device, credential) => {
    if (device === "sleeper") throw new FieldloopError("device_suspended", "suspended");
    if (credential !== `secret of ${device}`) throw new FieldloopError("unauthenticated", "unknown");
  },
};

async function start(options: Partial<BrokerOptions> = {}): Promise<number> {
  broker = new Broker({ authorize: DEVICES, logger: silent, ...options });
  return broker.start(0, "127.0.0.1");
}

async function connect(
  port: number,
  id: string,
  options: mqtt.IClientOptions = {},
): Promise<mqtt.MqttClient> {
  const client = await mqtt.connectAsync(
    `mqtt://127.0.0.1:${port}`,
    {
      clientId: id,
      username: id,
      password: `secret of ${id}`,
      reconnectPeriod: 0,
      connectTimeout: 5_000,
      ...options,
    },
    false,
  );
  client.on("error", () => undefined);
  clients.push(client);
  return client;
}

/** A raw socket that remembers whether the broker closed it. */
function raw(port: number): { socket: Socket; closed: () => boolean; received: () => Buffer } {
  const socket = connectTcp(port, "127.0.0.1");
  let closed = false;
  let received = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => (received = Buffer.concat([received, chunk])));
  socket.on("close", () => (closed = true));
  socket.on("error", () => (closed = true));
  sockets.push(socket);
  return { socket, closed: () => closed, received: () => received };
}

const connectPacket = (id: string, more: { password?: Buffer } = {}): Buffer =>
  mqttPacket.generate({
    cmd: "connect",
    protocolId: "MQTT",
    protocolVersion: 4,
    clientId: id,
    username: id,
    password: Buffer.from(`secret of ${id}`),
    clean: true,
    keepalive: 30,
    ...more,
  });

const publishPacket = (topic: string, qos: 0 | 1 | 2, bytes: number): Buffer =>
  mqttPacket.generate({
    cmd: "publish",
    topic,
    payload: Buffer.alloc(bytes),
    qos,
    retain: false,
    dup: false,
    ...(qos ? { messageId: 1 } : {}),
  });

const subscribePacket = (filters: string[]): Buffer =>
  mqttPacket.generate({
    cmd: "subscribe",
    messageId: 1,
    subscriptions: filters.map((topic) => ({ topic, qos: 0 as const })),
  });

describe("broker guard: what ends a connection", () => {
  const before: [name: string, bytes: Buffer][] = [
    ["a CONNECT that announces 256 MB", Buffer.from([0x10, 0xff, 0xff, 0xff, 0x7f])],
    ["a remaining length of five bytes", Buffer.from([0x10, 0x80, 0x80, 0x80, 0x80, 1])],
    ["a first packet that is no CONNECT", publishPacket("fieldloop/1/cam-1/up/event", 0, 10)],
    ["a CONNECT above 4 KiB", connectPacket("cam-1", { password: Buffer.alloc(5_000) })],
    [
      "5 KB of pings before CONNECT was answered",
      Buffer.concat([connectPacket("nobody"), ...Array<Buffer>(3_000).fill(Buffer.from([0xc0, 0]))]),
    ],
    ["text of another protocol", Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
  ];
  it.each(before)("before CONNECT: %s", async (_name, bytes) => {
    const { socket, closed } = raw(await start());
    socket.write(bytes);
    await until("closed", closed);
  });

  const after: [name: string, bytes: Buffer][] = [
    ["a PUBLISH above 256 KiB, from its header", Buffer.from([0x30, 0x80, 0x80, 0x80, 0x7f])],
    ["QoS 2", publishPacket("fieldloop/1/cam-1/up/event", 2, 10)],
    ["QoS 3", Buffer.from([0x36, 8, 0, 1, 97, 0, 1, 1, 1, 1])],
    ["a topic of 300 bytes", publishPacket("t".repeat(300), 0, 10)],
    ["a SUBSCRIBE of 9 filters", subscribePacket(Array<string>(9).fill("fieldloop/1/cam-1/down/#"))],
    [
      "a SUBSCRIBE of 100,000 filters",
      Buffer.concat([Buffer.from([0x82, 0x82, 0x93, 0x16, 0, 1]), Buffer.alloc(10_000)]),
    ],
    ["a publication under another device", publishPacket("fieldloop/1/cam-2/up/event", 1, 10)],
    ["a publication to its own down", publishPacket("fieldloop/1/cam-1/down/desired", 1, 10)],
    ["a publication to $SYS", publishPacket("$SYS/x", 0, 10)],
    ["a publication with a wildcard", publishPacket("fieldloop/1/cam-1/up/+", 0, 10)],
    ["an empty payload", publishPacket("fieldloop/1/cam-1/up/presence", 1, 0)],
    ["an event above its kind's limit", publishPacket("fieldloop/1/cam-1/up/event", 1, 70_000)],
  ];
  it.each(after)("after CONNECT: %s", async (_name, bytes) => {
    const { socket, closed, received } = raw(await start());
    socket.write(connectPacket("cam-1"));
    await until("CONNACK", () => received().length >= 4);
    expect([...received()]).toEqual([0x20, 2, 0, 0]);
    socket.write(bytes);
    await until("closed", closed);
  });

  it("no CONNECT in time", async () => {
    const { closed } = raw(await start({ connectTimeoutMs: 50 }));
    await until("closed", closed);
  });

  it("holds no memory for a body that was only announced", async () => {
    const port = await start();
    const attackers = Array.from({ length: 50 }, () => raw(port));
    const body = Buffer.alloc(1 << 20);
    for (const { socket } of attackers) {
      socket.write(Buffer.from([0x10, 0xff, 0xff, 0xff, 0x7f]));
      socket.write(body);
    }
    await until("all closed", () => attackers.every(({ closed }) => closed()));
    expect(broker!.counters().sockets).toBe(0);
  });

  it("more sockets than allowed", async () => {
    const port = await start({ socketsMax: 3 });
    const opened = Array.from({ length: 5 }, () => raw(port));
    await until("two refused", () => opened.filter(({ closed }) => closed()).length === 2);
    expect(broker!.counters().refusedSockets).toBe(2);
  });
});

describe("broker: who may connect", () => {
  const refused: [name: string, id: string, options: mqtt.IClientOptions][] = [
    ["a wrong secret", "cam-1", { password: "guess" }],
    [
      "no secret",
      "cam-1",
      { username: undefined as unknown as string, password: undefined as unknown as string },
    ],
    ["another user name", "cam-1", { username: "cam-2", password: "secret of cam-2" }],
    ["a suspended device", "sleeper", {}],
    [
      "a will on another device's topic",
      "cam-1",
      { will: { topic: "fieldloop/1/cam-2/up/presence", payload: Buffer.from("x"), qos: 1, retain: true } },
    ],
    [
      "a will on a command",
      "cam-1",
      { will: { topic: "fieldloop/1/cam-1/up/event", payload: Buffer.from("x"), qos: 1, retain: false } },
    ],
  ];
  it.each(refused)("not %s", async (_name, id, options) => {
    const port = await start();
    await expect(connect(port, id, options)).rejects.toThrow();
    expect(broker!.counters().refusedConnects).toBe(1);
    expect(broker!.counters().connected).toBe(0);
  });

  it("answers an empty client id without a clean session with 2 [MQTT-3.1.3-8]", async () => {
    const { socket, closed, received } = raw(await start());
    socket.write(Buffer.from([0x10, 12, 0, 4, ...Buffer.from("MQTT"), 4, 0, 0, 30, 0, 0]));
    await until("closed", closed);
    expect([...received()]).toEqual([0x20, 2, 0, 2]);
  });

  it("a device twice: the newer connection stays, and the takeover is counted", async () => {
    const port = await start();
    const first = await connect(port, "cam-1");
    const second = await connect(port, "cam-1");
    await until("the first is closed", () => !first.connected);
    expect(second.connected).toBe(true);
    expect(broker!.counters()).toMatchObject({ takeovers: 1, connected: 1 });
  });
});

describe("broker: who receives what", () => {
  const KINDS = [
    "up/presence",
    "up/state",
    "up/predictions",
    "up/event",
    "down/desired",
    "down/command",
    "down/ack",
  ];

  it("a device receives its own down topics whatever it subscribes to", async () => {
    const port = await start();
    const spy = await connect(port, "cam-1");
    const other = await connect(port, "cam-2");
    const arrived: string[] = [];
    spy.on("message", (topic) => arrived.push(topic));
    const own = "fieldloop/1/cam-1/down/#";
    const filters = [
      "#",
      "+/+/+/+/+",
      "fieldloop/#",
      "fieldloop/1/+/up/#",
      "fieldloop/1/+/down/#",
      "fieldloop/1/cam-2/#",
      "fieldloop/1/cam-2/down/desired",
      "fieldloop/1/cam-1/#",
      "fieldloop/1/cam-1/up/#",
      "fieldloop/1/cam-1/+/desired",
      "fieldloop/1/+/down/ack",
      "$SYS/#",
      "$share/g/fieldloop/1/+/up/#",
      "fieldloop/1/cam-1/down/../desired",
    ];
    for (const filter of filters) await spy.subscribeAsync(filter, { qos: 1 }).catch(() => undefined);
    expect(broker!.counters().refusedSubscriptions).toBe(filters.length);
    await spy.subscribeAsync(own, { qos: 1 });
    for (const kind of KINDS.filter((name) => name.startsWith("up/"))) {
      await other.publishAsync(`fieldloop/1/cam-2/${kind}`, "x", {
        qos: 1,
        retain: kind === "up/state" || kind === "up/presence",
      });
    }
    for (const device of ["cam-2", "cam-1"]) {
      for (const kind of ["desired", "command", "ack"] as const)
        await broker!.publish(device, kind, kind === "ack" ? ACK : Uint8Array.of(1));
    }
    await until("its own arrived", () => arrived.length >= 3);
    expect(new Set(arrived)).toEqual(
      new Set(KINDS.filter((kind) => kind.startsWith("down/")).map((kind) => `fieldloop/1/cam-1/${kind}`)),
    );
  });

  it("a retained desired state reaches a device that comes later", async () => {
    const port = await start();
    await broker!.publish("cam-1", "desired", Uint8Array.of(1));
    await broker!.publish("cam-1", "desired", Uint8Array.of(2));
    const cam = await connect(port, "cam-1");
    const arrived: Buffer[] = [];
    cam.on("message", (_topic, payload) => arrived.push(payload));
    await cam.subscribeAsync("fieldloop/1/cam-1/down/#", { qos: 1 });
    await until("it arrived", () => arrived.length > 0);
    expect(arrived.map((payload) => [...payload])).toEqual([[2]]);
  });

  it("retains only presence and state", async () => {
    const port = await start();
    const cam = await connect(port, "cam-1");
    cam.publish("fieldloop/1/cam-1/up/event", "x", { qos: 0, retain: true });
    await until("disconnected", () => !cam.connected);
    expect(broker!.counters()).toMatchObject({ refusedPublishes: 1, retained: 0 });
  });

  it("allows as many subscriptions as a device needs", async () => {
    const port = await start();
    const cam = await connect(port, "cam-1");
    const down = ["#", "+", "desired", "command", "ack"].map((kind) => `fieldloop/1/cam-1/down/${kind}`);
    for (const filter of down) await cam.subscribeAsync(filter);
    expect(broker!.counters().refusedSubscriptions).toBe(0);
  });

  it("publishes the last will of a device that vanished", async () => {
    const port = await start();
    const arrived: string[] = [];
    await broker!.subscribe("fieldloop/1/+/up/#", ({ topic }) => arrived.push(topic));
    const will = {
      topic: "fieldloop/1/cam-1/up/presence",
      payload: Buffer.from("gone"),
      qos: 1 as const,
      retain: true,
    };
    const cam = await connect(port, "cam-1", { will });
    cam.stream.destroy();
    await until("the will", () => arrived.includes(will.topic));
  });

  it("slows a sender above its rate down instead of losing its messages", async () => {
    const port = await start({ guard: { messagesPerSecond: 200, messagesBurst: 10 } });
    const arrived: string[] = [];
    await broker!.subscribe("fieldloop/1/+/up/#", ({ topic }) => arrived.push(topic));
    const cam = await connect(port, "cam-1");
    const started = performance.now();
    for (let batch = 0; batch < 10; batch++) {
      await Promise.all(
        Array.from({ length: 10 }, () => cam.publishAsync("fieldloop/1/cam-1/up/event", "x", { qos: 1 })),
      );
    }
    expect(performance.now() - started).toBeGreaterThan(300);
    await until("all of them", () => arrived.length === 100);
  });

  it("goes on serving others while one subscriber reads nothing", async () => {
    const port = await start({ drainTimeoutMs: 2_000 });
    const frozen = raw(port);
    frozen.socket.write(connectPacket("cam-1"));
    await until("CONNACK", () => frozen.received().length >= 4);
    frozen.socket.write(subscribePacket(["fieldloop/1/cam-1/down/#"]));
    await until("SUBACK", () => frozen.received().length > 4);
    frozen.socket.pause();
    const healthy = await connect(port, "cam-2");
    let arrived = 0;
    healthy.on("message", () => arrived++);
    await healthy.subscribeAsync("fieldloop/1/cam-2/down/#");
    const payload = new Uint8Array(100_000);
    for (let index = 0; index < 100; index++) {
      void broker!.publish("cam-1", "command", payload).catch(() => undefined);
      void broker!.publish("cam-2", "command", payload).catch(() => undefined);
    }
    await until("the healthy one has everything", () => arrived === 100, 15_000);
    await until("the frozen one is closed", () => !broker!.isConnected("cam-1"), 10_000);
  });
});

describe("broker: bytes on the wire", () => {
  it("counts packets of predictions, their PUBACKs and acknowledgements as they are on the wire", async () => {
    const port = await start();
    const cam = await connect(port, "cam-1");
    await cam.subscribeAsync("fieldloop/1/cam-1/down/#");
    const topic = "fieldloop/1/cam-1/up/predictions";
    await cam.publishAsync(topic, Buffer.alloc(200), { qos: 1 });
    await cam.publishAsync(topic, Buffer.alloc(10), { qos: 1 });
    await cam.publishAsync("fieldloop/1/cam-1/up/event", Buffer.alloc(10), { qos: 1 });
    let acked = false;
    cam.on("message", () => (acked = true));
    await broker!.publish("cam-1", "ack", ACK);
    await until("the acknowledgement", () => acked);
    const publish = (bytes: number): number => publishPacket(topic, 1, bytes).length;
    const { meter } = broker!;
    expect(meter.byKind.get("up/predictions")).toEqual({ packets: 2, bytes: publish(200) + publish(10) });
    expect(meter.predictionPubacks).toEqual({ packets: 2, bytes: 8 });
    const ack = publishPacket("fieldloop/1/cam-1/down/ack", 0, ACK.length).length;
    expect(meter.byKind.get("down/ack")).toEqual({ packets: 1, bytes: ack });
    expect(meter.predictionBytes).toBe(publish(200) + publish(10) + 8 + ack);
  });
});

describe("open broker", () => {
  it("delivers QoS 2, keeps sessions and retained messages of any topic", async () => {
    const port = await start({ authorize: { kind: "open" } });
    const sub = await connect(port, "sub", { clean: false });
    await sub.subscribeAsync("any/#", { qos: 2 });
    await sub.endAsync();
    const pub = await connect(port, "pub");
    await pub.publishAsync("any/one", "1", { qos: 2 });
    await pub.publishAsync("any/kept", "2", { qos: 1, retain: true });
    const arrived: string[] = [];
    const again = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
      clientId: "sub",
      clean: false,
      reconnectPeriod: 0,
    });
    clients.push(again);
    again.on("message", (topic) => arrived.push(topic));
    await until("both arrived", () => arrived.length >= 2);
    // Order is promised only within one quality of service.
    expect(arrived.sort()).toEqual(["any/kept", "any/one"]);
  });

  it("keeps only so many messages for an absent session", async () => {
    const port = await start({ authorize: { kind: "open" } });
    const sub = await connect(port, "sub", { clean: false });
    await sub.subscribeAsync("any/#", { qos: 1 });
    await sub.endAsync();
    const pub = await connect(port, "pub");
    for (let index = 0; index < 150; index++) await pub.publishAsync("any/x", String(index), { qos: 1 });
    const arrived: string[] = [];
    const again = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
      clientId: "sub",
      clean: false,
      reconnectPeriod: 0,
    });
    clients.push(again);
    again.on("message", (_topic, payload) => arrived.push(payload.toString()));
    await until("the last that was kept", () => arrived.includes("99"));
    expect(arrived).toHaveLength(100);
  });
});

describe("topic matching", () => {
  // MQTT 3.1.1 section 4.7, its own examples among them.
  const cases: [filter: string, topic: string, matched: boolean][] = [
    ["sport/tennis/player1/#", "sport/tennis/player1", true],
    ["sport/tennis/player1/#", "sport/tennis/player1/ranking", true],
    ["sport/+", "sport", false],
    ["sport/+", "sport/", true],
    ["+/+", "/finance", true],
    ["/+", "/finance", true],
    ["+", "/finance", false],
    ["#", "$SYS/x", false],
    ["+/monitor/Clients", "$SYS/monitor/Clients", false],
    ["$SYS/#", "$SYS/monitor", true],
    ["a/b", "a/b/c", false],
  ];
  it.each(cases)("%s %s: %s", (filter, topic, matched) => expect(matches(filter, topic)).toBe(matched));
});

describe("token bucket", () => {
  it("allows a burst, then makes wait for what is owed", () => {
    const bucket = new TokenBucket(10, 5, 0);
    expect(bucket.take(5, 0)).toBe(0);
    expect(bucket.take(1, 0)).toBe(100);
    expect(bucket.take(0, 100)).toBe(0);
    expect(bucket.take(5, 10_000)).toBe(0);
  });
});
