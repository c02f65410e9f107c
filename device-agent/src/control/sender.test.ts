import { join } from "node:path";
import { decodeCbor, judgeDelivery, encodeCbor, type Ack, type Stream } from "@fieldloop/protocol";
import { Random } from "@fieldloop/runtime/simulate";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { scratchFolder } from "../testing/package.test.kit.js";
import { openTestBandwidth } from "../testing/updater.test.kit.js";
import { Sender } from "./sender.js";
import { Spool } from "./spool/spool.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let spool: Spool;
let sender: Sender;
/** Only the clock is ours: files and streams are real. */
let now: number;

beforeEach(async () => {
  folder = await scratchFolder();
  now = 0;
  await reopen(1);
});
afterEach(async () => {
  sender.disconnected();
  await spool.close();
  await folder.remove();
});

async function reopen(boot: number, bytesPerSecond = 1e9): Promise<void> {
  spool = await Spool.open({
    directory: join(folder.path, "spool"),
    boot,
    bytesMax: 1e9,
    onDurable: () => sender.pump(),
    onEvicted: () => undefined,
    onStorage: () => undefined,
  });
  const clock = { now: () => now, monotonic: () => now };
  const bandwidth = await openTestBandwidth(folder.path, { clock, bytesPerSecond });
  sender = new Sender({
    device: "d",
    spool,
    clock,
    bandwidth,
    onError: () => undefined,
    checkIntervalMs: 2,
  });
}

const plain = { worth: 0.5, protected: false };
function append(stream: Stream, boot: number, count = 1, padding = 0): void {
  for (let index = 0; index < count; index++) {
    spool.append(stream, plain, (seq) =>
      encodeCbor({ boot, seq, prev: 0, padding: new Uint8Array(padding) }),
    );
  }
}

interface Sent {
  stream: Stream;
  boot: number;
  seq: number;
  prev: number;
}

/** A server over the delivery rules of the protocol, which may lose acknowledgements. */
class Server {
  readonly sent: Sent[] = [];
  readonly stored: Sent[] = [];
  readonly #cursors = new Map<Stream, { boot: number; seq: number }>();
  loses: (message: Sent) => boolean = () => false;
  losesAck: (message: Sent) => boolean = () => false;

  publish = (topic: string, payload: Uint8Array): Promise<void> => {
    const stream = topic.split("/").at(-1) as Stream;
    const { boot, seq, prev } = decodeCbor(payload) as unknown as Sent;
    const message = { stream, boot, seq, prev };
    this.sent.push(message);
    if (this.loses(message)) return Promise.resolve();
    const verdict = judgeDelivery(this.#cursors.get(stream), message);
    if (verdict === "accept") {
      this.stored.push(message);
      this.#cursors.set(stream, { boot, seq });
    }
    const cursor = this.#cursors.get(stream);
    if (cursor && !this.losesAck(message)) {
      const ack: Ack = { stream, ...cursor };
      setImmediate(() => sender.acknowledged([ack]));
    }
    return Promise.resolve();
  };
}

async function settle(): Promise<void> {
  await vi.waitFor(() => expect(sender.idle).toBe(true), { timeout: 15_000, interval: 5 });
}

describe("Sender", () => {
  it("brings everything once and in order, events first", async () => {
    append("predictions", 1, 3);
    append("event", 1, 3);
    await spool.flush();
    const server = new Server();
    sender.connected(server.publish);
    await settle();
    expect(server.sent.map(({ stream }) => stream)).toEqual([
      ...["event", "event", "event"],
      ...["predictions", "predictions", "predictions"],
    ]);
    expect(server.stored).toHaveLength(6);
  });

  it("sends again after lost acknowledgements and lost messages; the server stores each once", async () => {
    append("event", 1, 60);
    await spool.flush();
    const server = new Server();
    const random = new Random(7, 1);
    server.loses = () => random.uniform() < 0.2;
    server.losesAck = () => random.uniform() < 0.4;
    sender.connected(server.publish);
    const time = setInterval(() => (now += 2_000), 5);
    try {
      await settle();
    } finally {
      clearInterval(time);
    }
    expect(server.stored.map(({ seq }) => seq)).toEqual(Array.from({ length: 60 }, (_, index) => index + 1));
    expect(sender.resends).toBeGreaterThan(0);
  });

  it("waits longer and longer for an acknowledgement that never comes", async () => {
    append("event", 1, 1);
    await spool.flush();
    const server = new Server();
    server.losesAck = () => true;
    sender.connected(server.publish);
    const sentAt: number[] = [];
    for (let step = 0; step < 300; step++) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      now += 500;
      if (server.sent.length > sentAt.length) sentAt.push(now);
    }
    const gaps = sentAt.slice(1).map((at, index) => at - sentAt[index]!);
    expect(gaps.length).toBeGreaterThanOrEqual(2);
    expect(gaps.at(-1)!).toBeGreaterThan(gaps[0]! * 1.5);
  });

  it("lets no record of a newer boot start before the older boot's are acknowledged", async () => {
    append("event", 1, 5);
    await spool.close();
    await reopen(2);
    append("event", 2, 5);
    await spool.flush();
    const server = new Server();
    server.losesAck = ({ boot, seq }) => boot === 1 && seq < 5;
    sender.connected(server.publish);
    await settle();
    expect(server.stored.map(({ boot, seq }) => `${boot}/${seq}`)).toEqual([
      ...["1/1", "1/2", "1/3", "1/4", "1/5"],
      ...["2/1", "2/2", "2/3", "2/4", "2/5"],
    ]);
    expect(server.sent.find(({ boot }) => boot === 2)?.prev).toBe(0);
  });

  it("begins at the head with an acceptable message after a broken connection", async () => {
    append("event", 1, 10);
    await spool.flush();
    const deaf = new Server();
    deaf.loses = () => true;
    sender.connected(deaf.publish);
    await vi.waitFor(() => expect(deaf.sent.length).toBe(10));
    sender.disconnected();
    const server = new Server();
    sender.connected(server.publish);
    await settle();
    expect(server.stored).toHaveLength(10);
    expect(server.sent[0]).toMatchObject({ seq: 1, prev: 0 });
  });

  it("keeps to the byte budget on average", async () => {
    await spool.close();
    await reopen(2, 10_000);
    append("sample", 2, 20, 10_000);
    await spool.flush();
    const server = new Server();
    sender.connected(server.publish);
    for (let step = 0; step < 40; step++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      now += 100;
      sender.pump();
    }
    // A burst of four seconds, then 10 KB/s over four seconds.
    expect(server.sent.length).toBeGreaterThanOrEqual(6);
    expect(server.sent.length).toBeLessThanOrEqual(10);
  });

  it("drops a record that the disk harmed, tells it, and goes on with the rest", async () => {
    append("event", 1, 3);
    await spool.flush();
    const second = spool.next("event", spool.next("event", undefined))!;
    const { writeFileSync, readFileSync } = await import("node:fs");
    const path = join(folder.path, "spool", "event", "0000000001.seg");
    const bytes = readFileSync(path);
    bytes[second.place!.offset + 50]! ^= 255;
    writeFileSync(path, bytes);
    const server = new Server();
    sender.connected(server.publish);
    await settle();
    expect(server.stored.map(({ seq }) => seq)).toEqual([1, 3]);
    expect(spool.recordsEvicted).toBe(1);
  });
});
