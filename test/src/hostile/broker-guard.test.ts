import { connect, type Socket } from "node:net";
import { Broker } from "@fieldloop/fleet-server";
import { encodeMessage } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Api } from "../kit/api.js";
import { silentLogger } from "../kit/logger.js";
import { WireClient } from "../kit/mqtt-wire.js";
import { ServerProcess } from "../kit/server-process.js";
import { until } from "../kit/wait.js";
import {
  WireDevice,
  connectFields,
  predictionBatch,
  predictionRows,
  type DeviceIdentity,
} from "../kit/wire-device.js";

const MIB = 1024 * 1024;
/** What the process may grow by under any one attack, and how long a healthy device may wait meanwhile: far above what is seen. */
const GROWTH_BYTES_MAX = 160 * MIB;
const ROUND_TRIP_MS_MAX = 1_000;
/** On a machine that is slow by itself: this many times the slowest round trip before any attack. */
const SLOWDOWN_MAX = 10;
const PROBE_EVERY_MS = 50;

interface Watched {
  readonly slowestMs: number;
  readonly grownBytes: number;
}

describe("the broker's guard under attack", () => {
  let server: ServerProcess;
  let admin: Api;
  let healthy: WireDevice;
  let attacker: DeviceIdentity;
  let seq = 0;
  let slowestQuietMs = 0;
  const sockets: Socket[] = [];
  const figures: string[] = [];

  beforeAll(async () => {
    server = await ServerProcess.start();
    admin = new Api(server.httpUrl, server.adminToken);
    healthy = await WireDevice.connect(server.mqttPort, await admin.enrol("healthy"));
    attacker = await admin.enrol("attacker");
    for (let warm = 0; warm < 20; warm++) slowestQuietMs = Math.max(slowestQuietMs, await roundTrip());
  });
  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    healthy.wire.drop();
    process.stdout.write(
      `broker guard: ${figures.length} attacks, quiet ${slowestQuietMs.toFixed(0)} ms; ${figures.join("; ")}\n`,
    );
    expect((await server.end()).code).toBe(0);
  });

  /** From a batch of predictions to its acknowledgement, which is sent after the commit. */
  async function roundTrip(): Promise<number> {
    const started = performance.now();
    await healthy.publish("predictions", predictionBatch({ seq: ++seq }));
    await healthy.acked("predictions", 1, seq, 10_000);
    healthy.wire.received.length = 0;
    return performance.now() - started;
  }

  /** Runs an attack while a healthy device works and the process is measured. */
  async function during(name: string, attack: () => Promise<void>): Promise<Watched> {
    const before = server.rssBytes() ?? 0;
    let done = false;
    let slowestMs = 0;
    let rssMax = before;
    const probe = (async () => {
      do {
        slowestMs = Math.max(slowestMs, await roundTrip());
        rssMax = Math.max(rssMax, server.rssBytes() ?? 0);
        await new Promise((resolve) => setTimeout(resolve, PROBE_EVERY_MS));
      } while (!done);
    })();
    const ended = attack().finally(() => (done = true));
    await Promise.all([ended, probe]);
    const watched = { slowestMs, grownBytes: rssMax - before };
    figures.push(`${name} ${slowestMs.toFixed(0)} ms, +${(watched.grownBytes / MIB).toFixed(0)} MiB`);
    expect(server.alive).toBe(true);
    expect(watched.grownBytes).toBeLessThan(GROWTH_BYTES_MAX);
    expect(watched.slowestMs).toBeLessThan(Math.max(ROUND_TRIP_MS_MAX, SLOWDOWN_MAX * slowestQuietMs));
    return watched;
  }

  async function socket(): Promise<Socket> {
    const opened = connect(server.mqttPort, "127.0.0.1");
    opened.on("error", () => undefined);
    // Who does not read does not see that the other side has closed.
    opened.resume();
    sockets.push(opened);
    await new Promise((resolve) => opened.once("connect", resolve));
    return opened;
  }

  const closed = (one: Socket, timeoutMs = 10_000): Promise<unknown> =>
    until("the server closes the connection", () => one.destroyed || one.closed, { timeoutMs });

  /** Writes until everything is sent or the other side is gone. */
  async function flood(one: Socket, chunk: Buffer, bytes: number): Promise<void> {
    for (let sent = 0; sent < bytes && !one.destroyed; sent += chunk.length) {
      if (!one.write(chunk))
        await new Promise<void>((resolve) => {
          one.once("drain", resolve);
          one.once("close", () => resolve());
        });
    }
  }

  it("200 MB of one announced CONNECT, on eight sockets", async () => {
    await during("200 MB CONNECT", async () => {
      const attackers = await Promise.all(Array.from({ length: 8 }, socket));
      await Promise.all(
        attackers.map(async (one) => {
          one.write(Buffer.from("10ffffff5f00044d5154540402001e", "hex"));
          await flood(one, Buffer.alloc(MIB), 200 * MIB);
          await closed(one);
        }),
      );
    });
  });

  it("200 MB of one announced PUBLISH after CONNECT", async () => {
    await during("200 MB PUBLISH", async () => {
      const device = await WireDevice.connect(server.mqttPort, attacker);
      device.wire.sendRaw(Buffer.from("30ffffff5f", "hex"));
      for (let sent = 0; sent < 200 && !device.wire.closed; sent++) {
        device.wire.sendRaw(Buffer.alloc(MIB));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await device.wire.expectClosed();
    });
  });

  it("a CONNECT that comes byte by byte is given up on after five seconds", async () => {
    await during("slow CONNECT", async () => {
      const one = await socket();
      const started = performance.now();
      const bytes = Buffer.from("106400044d5154540402001e", "hex");
      let at = 0;
      const drip = setInterval(() => {
        if (one.destroyed) return;
        one.write(bytes.subarray(at, at + 1));
        at = Math.min(at + 1, bytes.length - 1);
      }, 300);
      await closed(one).finally(() => clearInterval(drip));
      const afterMs = performance.now() - started;
      expect(afterMs).toBeGreaterThan(4_000);
      expect(afterMs).toBeLessThan(8_000);
    });
  });

  it("2,000 silent sockets are closed, and others are served meanwhile", async () => {
    await during("2,000 silent sockets", async () => {
      // By the hundred: a full accept queue of the system would leave some that the server has never seen.
      const silent: Socket[] = [];
      for (let hundred = 0; hundred < 20; hundred++) {
        silent.push(...(await Promise.all(Array.from({ length: 100 }, socket))));
      }
      await until("the server holds most of them", async () => {
        const { text } = await admin.send("GET", "/metrics");
        return Number(/fieldloop_broker\{kind="sockets"\} (\d+)/.exec(text)?.[1]) > 1_000;
      });
      // A newcomer gets in between them.
      const device = await WireDevice.connect(server.mqttPort, attacker);
      await device.wire.settle();
      device.wire.disconnect();
      await until("all are closed", () => silent.every((one) => one.destroyed || one.closed), {
        timeoutMs: 12_000,
      });
    });
  });

  it("100,000 filters in one SUBSCRIBE", async () => {
    await during("100,000 filters", async () => {
      const device = await WireDevice.connect(server.mqttPort, attacker);
      const filter = Buffer.from("000161" + "01", "hex");
      const body = Buffer.concat([Buffer.from([0, 1]), Buffer.alloc(4 * 100_000, filter)]);
      const length = [0x80 | (body.length & 0x7f), 0x80 | ((body.length >> 7) & 0x7f), body.length >> 14];
      device.wire.sendRaw(Buffer.concat([Buffer.from([0x82, ...length]), body]));
      await device.wire.expectClosed();
    });
  });

  it("600 connections with wrong passwords", async () => {
    await during("600 wrong passwords", async () => {
      for (let round = 0; round < 12; round++) {
        await Promise.all(
          Array.from({ length: 50 }, async () => {
            const client = await WireClient.open(server.mqttPort);
            client.send({
              cmd: "connect",
              protocolId: "MQTT",
              protocolVersion: 4,
              clean: true,
              keepalive: 30,
              ...connectFields({ ...attacker, credential: "fld.attacker.guess" }),
            });
            await client.expectClosed(10_000);
          }),
        );
      }
    });
  });

  it("a device that takes its own place 100 times", async () => {
    await during("100 takeovers", async () => {
      for (let at = 0; at < 100; at++) {
        const client = await WireClient.connect(server.mqttPort, connectFields(attacker));
        if (at % 2 === 0) client.drop();
      }
    });
  });

  it("a flood of small messages as fast as one socket takes them", async () => {
    await during("a flood", async () => {
      const device = await WireDevice.connect(server.mqttPort, attacker);
      const garbage = encodeMessage("presence", { online: true, boot: 1, agentVersion: "x" });
      for (let at = 0; at < 4_000 && !device.wire.closed; at++) {
        device.wire.send({
          cmd: "publish",
          topic: "fieldloop/1/attacker/up/presence",
          payload: Buffer.from(garbage),
          qos: 0,
          retain: false,
          dup: false,
        });
      }
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      device.wire.drop();
    });
  });

  it("batches whose rows spread over as many buckets as they can", async () => {
    await during("spread batches", async () => {
      const device = await WireDevice.connect(server.mqttPort, attacker);
      const rows = predictionRows(2_000).map((row, at) => ({ ...row, time: row.time + at * 60_000 }));
      for (let at = 1; at <= 100; at++) {
        const batch = predictionBatch({ boot: 1, seq: at, rows, firstN: at * 2_000 });
        device.wire.send({
          cmd: "publish",
          topic: "fieldloop/1/attacker/up/predictions",
          payload: Buffer.from(batch),
          qos: 0,
          retain: false,
          dup: false,
        });
      }
      await device.acked("predictions", 1, 100, 15_000);
      device.wire.drop();
    });
  });
});

describe("a subscriber that reads nothing", () => {
  const MESSAGES = 150;
  const PAYLOAD = Buffer.alloc(200 * 1024, 7);

  it("does not stall the others, and is closed after the time for draining", async () => {
    const guard = { bytesPerSecond: 1e9, bytesBurst: 1e9, messagesPerSecond: 1e6, messagesBurst: 1e6 };
    const broker = new Broker({ authorize: { kind: "open" }, logger: silentLogger, guard });
    const port = await broker.start(0, "127.0.0.1");
    try {
      const frozen = connect(port, "127.0.0.1");
      frozen.on("error", () => undefined);
      frozen.write(Buffer.from("101200044d5154540402012c000666726f7a656e", "hex"));
      frozen.write(Buffer.from("8206000100012300", "hex"));
      await new Promise((resolve) => frozen.once("data", resolve));
      frozen.pause();
      const reader = await WireClient.connect(port, { clientId: "reader" });
      await reader.subscribe({ "#": 0 });
      const sender = await WireClient.connect(port, { clientId: "sender" });
      const started = performance.now();
      for (let at = 0; at < MESSAGES; at++) await sender.publish("frames", PAYLOAD, { qos: 1 });
      await until("the reader has everything", () => reader.publishes().length === MESSAGES, {
        timeoutMs: 15_000,
      });
      const tookMs = performance.now() - started;
      process.stdout.write(
        `frozen subscriber: ${MESSAGES} messages of 200 KiB reached the others in ${tookMs.toFixed(0)} ms\n`,
      );
      expect(tookMs).toBeLessThan(12_000);
      await until("the frozen one is dropped", () => broker.counters().connected === 2, {
        timeoutMs: 10_000,
      });
      frozen.destroy();
      reader.drop();
      sender.drop();
    } finally {
      await broker.stop();
    }
  }, 40_000);
});
