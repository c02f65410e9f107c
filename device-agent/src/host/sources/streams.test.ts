import { type ChildProcess, spawn } from "node:child_process";
import { appendFileSync, mkdtempSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { connectAsync, type MqttClient } from "mqtt";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../../limits.js";
import { parseSourceSpec, sourceName } from "../../source-spec.js";
import { until } from "../../testing/fleet.test.kit.js";
import { scratchFolder } from "../../testing/package.test.kit.js";
import { hasProgram, rowsOf, SourceStage, windowsOf } from "./sources.test.kit.js";
import type { TcpSource } from "./tcp.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let stage: SourceStage;
beforeEach(async () => {
  folder = await scratchFolder();
  stage = new SourceStage();
});
afterEach(async () => {
  await stage.close();
  await folder.remove();
});

const numbers = (from: number, to: number): string =>
  Array.from({ length: to - from }, (_, at) => `${from + at}\n`).join("");

/** The next row that is another than this one. */
async function rowAfter(row: unknown): Promise<unknown> {
  for (;;) {
    const [next] = rowsOf(await stage.take(1));
    if (JSON.stringify(next) !== JSON.stringify(row)) return next;
  }
}

describe("files of rows", () => {
  it("are read to their end, without losing a row to a slow consumer", async () => {
    const path = join(folder.path, "a.csv");
    writeFileSync(path, `n\n${numbers(0, 2000)}2000`);
    await stage.open(`csv:${path}?length=1`);
    expect(windowsOf(await stage.take(2001)).flat()).toEqual(Array.from({ length: 2001 }, (_, at) => at));
    expect(stage.queue.dropped).toBe(0);
    expect(stage.source.counts!()).toMatchObject({ rows: 2001, malformedRows: 0 });
  });

  it("drop the oldest where they are told to, and count them", async () => {
    const path = join(folder.path, "a.csv");
    writeFileSync(path, numbers(0, 500));
    await stage.open(`csv:${path}?length=1&drop=oldest`);
    await until(() => stage.queue.seen === 500, "all is offered");
    expect(stage.queue.dropped).toBe(498);
    expect(windowsOf(await stage.take(2)).flat()).toEqual([498, 499]);
  });

  it("play again and again, and at the pace of their clock", async () => {
    const path = join(folder.path, "a.ndjson");
    writeFileSync(path, [0, 0.05, 0.1].map((t) => `{"t":${t},"v":${t}}\n`).join(""));
    const begin = performance.now();
    await stage.open(`ndjson:${path}?columns=v&hz=20&pace=realtime&loop=1&length=1`);
    expect(
      windowsOf(await stage.take(5))
        .flat()
        .map((v) => Math.round(v * 100)),
    ).toEqual([0, 5, 10, 0, 5]);
    expect(performance.now() - begin).toBeGreaterThan(140);
  });

  it("are followed as they grow, are cut short, and are replaced", async () => {
    const path = join(folder.path, "log.csv");
    writeFileSync(path, "t,v\n1,1\n2,2\n");
    await stage.open(`csv:${path}?follow=1&columns=v`);
    // Whatever was there before it looked is of no interest, so it is written to until it answers.
    const writing = setInterval(() => appendFileSync(path, "3,3\n"), 20);
    expect(rowsOf(await stage.take(1))).toEqual([{ v: 3 }]);
    clearInterval(writing);
    appendFileSync(path, "4,");
    appendFileSync(path, "4\n");
    expect(await rowAfter({ v: 3 })).toEqual({ v: 4 });
    truncateSync(path, 0);
    appendFileSync(path, "t,v\n5,5\n");
    expect(rowsOf(await stage.take(1))).toEqual([{ v: 5 }]);
    writeFileSync(join(folder.path, "new.csv"), "t,v\n6,6\n");
    renameSync(join(folder.path, "new.csv"), path);
    expect(rowsOf(await stage.take(1))).toEqual([{ v: 6 }]);
  });

  it("are followed from a line that is not whole yet, and their last one may lack its end", async () => {
    const path = join(folder.path, "log.csv");
    writeFileSync(path, "v\n1\n12");
    await stage.open(`csv:${path}?follow=1`);
    const writing = setInterval(() => appendFileSync(path, "34\n"), 20);
    expect(rowsOf(await stage.take(1))).toEqual([{ v: 1234 }]);
    clearInterval(writing);
    appendFileSync(path, "5");
    writeFileSync(join(folder.path, "new.csv"), "v\n6\n");
    renameSync(join(folder.path, "new.csv"), path);
    expect(await rowAfter({ v: 34 })).toEqual({ v: 5 });
    expect(rowsOf(await stage.take(1))).toEqual([{ v: 6 }]);
  });

  it("are followed from their first row where they are made later", async () => {
    const path = join(folder.path, "late.csv");
    await stage.open(`csv:${path}?follow=1`);
    await until(() => stage.codes.includes("source_failed"), "the trouble is told");
    writeFileSync(join(folder.path, "made.csv"), "v\n1\n");
    renameSync(join(folder.path, "made.csv"), path);
    expect(rowsOf(await stage.take(1))).toEqual([{ v: 1 }]);
  });

  it.each(["", "v\n", "v\nno number\n"])("are not looped over where they hold nothing: %j", async (text) => {
    const path = join(folder.path, "a.csv");
    writeFileSync(path, text);
    await stage.open(`csv:${path}?loop=1&length=2&columns=0`);
    await until(
      () => stage.troubles.some((error) => error?.message.includes("cannot be looped")),
      "the trouble is told",
    );
  });

  it("are waited for, and must be files", async () => {
    const path = join(folder.path, "late.csv");
    await stage.open(`csv:${path}?length=1`);
    await until(() => stage.codes.includes("source_failed"), "the trouble is told");
    writeFileSync(path, "1\n");
    expect(windowsOf(await stage.take(1))).toEqual([[1]]);
    expect(stage.codes.at(-1)).toBeUndefined();
    await stage.source.close();
    await stage.open(`csv:${folder.path}`);
    await until(
      () => stage.troubles.some((error) => error?.message.includes("no regular file")),
      "it is told",
    );
  });

  it("come from standard input", async () => {
    const stdin = new PassThrough();
    stage.stdin = stdin;
    await stage.open("ndjson:-?length=2");
    stdin.write('{"v":1}\n{"v"');
    stdin.write(":2}\n");
    expect(windowsOf(await stage.take(1))).toEqual([[1, 2]]);
    expect(sourceName(parseSourceSpec("ndjson:-"))).toBe("ndjson:-");
  });
});

/** A sensor that others connect to. */
class TestSensor {
  readonly sockets: Socket[] = [];
  readonly #server: Server = createServer((socket) => {
    socket.on("error", () => undefined);
    this.sockets.push(socket);
  });

  async start(port = 0): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

describe("tcp", () => {
  it("reads a sensor, and connects again when it was cut within a row", async () => {
    const sensor = new TestSensor();
    const port = await sensor.start();
    await stage.open(`tcp:127.0.0.1:${port}?format=csv&length=2&drop=wait`);
    await until(() => sensor.sockets.length === 1, "it connects");
    sensor.sockets[0]!.write("1\n2\n3\n4");
    expect(windowsOf(await stage.take(1))).toEqual([[1, 2]]);
    await until(() => stage.source.counts!().rows === 3, "the third row is read");
    sensor.sockets[0]!.destroy();
    await until(() => sensor.sockets.length === 2, "it connects again");
    sensor.sockets[1]!.write("5\n6\n");
    const [frame] = await stage.take(1);
    expect(windowsOf([frame!])).toEqual([[5, 6]]);
    expect(frame!.fresh).toBe(true);
    expect(stage.source.counts!()).toMatchObject({ rows: 5, malformedRows: 1, connections: 2, restarts: 1 });
    expect(stage.codes).toEqual(["row_malformed", "source_failed", undefined]);
    await stage.close();
    await sensor.stop();
  });

  it("slows its sender down where it waits", async () => {
    const sensor = new TestSensor();
    const port = await sensor.start();
    await stage.open(`tcp:127.0.0.1:${port}?format=csv&length=1&drop=wait`);
    await until(() => sensor.sockets.length === 1, "it connects");
    const block = "1234567890\n".repeat(100_000);
    for (let at = 0; at < 20; at++) sensor.sockets[0]!.write(block);
    await stage.take(50);
    expect(stage.queue.dropped).toBe(0);
    expect(stage.source.counts!().rows).toBeLessThan(100_000);
    expect(sensor.sockets[0]!.writableLength).toBeGreaterThan(block.length);
    await stage.close();
    await sensor.stop();
  });

  it("says when nobody answers", async () => {
    const sensor = new TestSensor();
    const port = await sensor.start();
    await sensor.stop();
    await stage.open(`tcp:127.0.0.1:${port}`);
    await until(() => stage.codes.includes("source_failed"), "the trouble is told");
    expect(stage.troubles[0]?.message).toContain("ECONNREFUSED");
  });

  it("keeps the windows of several senders apart", async () => {
    const source = (await stage.open("tcp-listen:0?length=3&format=float32&drop=wait")) as TcpSource;
    await until(() => source.port > 0, "it listens");
    const senders = [1, 2].map(() => connect(source.port, "127.0.0.1"));
    for (let n = 1; n <= 3; n++) {
      for (const [at, sender] of senders.entries())
        sender.write(new Uint8Array(Float32Array.of(n * 10 ** at).buffer));
    }
    const windows = windowsOf(await stage.take(2)).sort((a, b) => a[0]! - b[0]!);
    expect(windows).toEqual([
      [1, 2, 3],
      [10, 20, 30],
    ]);
    for (const sender of senders) sender.destroy();
  });

  it("survives what no sensor sends", async () => {
    const source = (await stage.open(
      "tcp-listen:0?length=1&format=csv&columns=0&header=0&drop=wait",
    )) as TcpSource;
    await until(() => source.port > 0, "it listens");
    const hostile = connect(source.port, "127.0.0.1");
    hostile.on("error", () => undefined);
    hostile.write(Buffer.alloc(AGENT_LIMITS.rowLineBytesMax + 10, "1"));
    hostile.write(`\n${"9,".repeat(5_000)}\n`);
    hostile.write(Buffer.from([0xff, 0xfe, 0, 1, 2, 0x0a]));
    hostile.write("NaN\n7\n");
    expect(windowsOf(await stage.take(1))).toEqual([[7]]);
    expect(stage.source.counts!()).toMatchObject({ rows: 1, malformedRows: 4 });
    expect(stage.codes).toEqual(["row_malformed"]);
    hostile.destroy();
  });
});

/** Debian puts it where only root looks. */
const SEARCH = `${process.env.PATH ?? ""}:/usr/sbin`;
const hasMosquitto = hasProgram("mosquitto", ["-h"], "MQTT sources", SEARCH);

describe.skipIf(!hasMosquitto)("mqtt", () => {
  let broker: ChildProcess | undefined;
  let port = 0;
  let client: MqttClient | undefined;
  afterEach(async () => {
    await stage.close();
    await client?.endAsync(true);
    client = undefined;
    await stopBroker();
  });

  async function startBroker(at: number, configuration = "allow_anonymous true"): Promise<void> {
    const path = join(mkdtempSync(join(folder.path, "broker-")), "mosquitto.conf");
    writeFileSync(path, `user root\nlistener ${at} 127.0.0.1\n${configuration}\n`);
    broker = spawn("mosquitto", ["-c", path], { stdio: "ignore", env: { ...process.env, PATH: SEARCH } });
    await until(() => answers(at), "the broker answers");
  }

  async function stopBroker(): Promise<void> {
    const running = broker;
    broker = undefined;
    if (!running || running.exitCode !== null) return;
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGKILL");
    await ended;
  }

  let answered = false;
  function answers(at: number): boolean {
    const socket = connect(at, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.on("connect", () => {
      answered = true;
      socket.destroy();
    });
    return answered;
  }

  beforeEach(async () => {
    answered = false;
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    ({ port } = server.address() as AddressInfo);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });

  /** Sends until the source is subscribed: what came before is nobody's. */
  async function publishUntilTaken(topic: string, payload: string | Buffer): Promise<void> {
    client ??= await connectAsync(`mqtt://127.0.0.1:${port}`);
    const seen = stage.source.counts!().messages!;
    const sending = setInterval(() => client?.publish(topic, payload), 50);
    try {
      await until(() => stage.source.counts!().messages! > seen, "the source is subscribed");
    } finally {
      clearInterval(sending);
    }
  }

  it("cuts the messages of each topic into windows of its own", async () => {
    await startBroker(port);
    await stage.open(`mqtt://127.0.0.1:${port}/plant/+/vibration?format=json&length=2&drop=wait`);
    await publishUntilTaken("plant/x/vibration", "{}");
    for (const value of [1, 2]) {
      for (const [at, machine] of ["a", "b"].entries()) {
        client!.publish(`plant/${machine}/vibration`, JSON.stringify({ v: value * 10 ** at }));
      }
    }
    expect(windowsOf(await stage.take(2))).toEqual([
      [1, 2],
      [10, 20],
    ]);
  });

  it.each([
    ["ndjson", '{"v":1}\n{"v":2}\n'],
    ["csv", "1\n2"],
    ["json", "[[1],[2]]"],
    ["float32", Buffer.from(Float32Array.of(1, 2).buffer)],
  ])("reads %s", async (format, payload) => {
    await startBroker(port);
    stage.window = { length: 2, hop: 2, channels: 1, sampleRateHz: 10 };
    await stage.open(`mqtt:mqtt://127.0.0.1:${port}/t?format=${format}&drop=wait&qos=1`);
    await publishUntilTaken("t", payload);
    expect(windowsOf(await stage.take(1))).toEqual([[1, 2]]);
    client!.publish("t", Buffer.from([0xff, 0x00, 0x01]));
    await until(() => stage.codes.includes("row_malformed"), "the trouble is told");
  });

  it("connects again to a broker that was gone", async () => {
    await startBroker(port);
    await stage.open(`mqtt://127.0.0.1:${port}/t?length=1&format=json`);
    await publishUntilTaken("t", "[1]");
    await client!.endAsync(true);
    client = undefined;
    await stopBroker();
    await until(() => stage.codes.includes("source_failed"), "the trouble is told");
    answered = false;
    await startBroker(port);
    await publishUntilTaken("t", "[1]");
    expect(stage.codes.at(-1)).toBeUndefined();
  });

  it("logs in from a file and says when it may not", async () => {
    const passwords = join(folder.path, "passwords");
    // mosquitto takes plain passwords only when its own tool has hashed them.
    writeFileSync(passwords, "");
    await startBroker(port, `allow_anonymous false\npassword_file ${passwords}`);
    const login = join(folder.path, "login");
    writeFileSync(login, "sensor:s3cret\n");
    await stage.open(`mqtt://127.0.0.1:${port}/t?login=${login}`);
    await until(() => stage.codes.includes("source_failed"), "the trouble is told");
    expect(stage.troubles[0]!.message).toContain("Not authorized");
    expect(stage.troubles[0]!.message).not.toContain("s3cret");
  });
});
