import {
  appendFileSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { decodeMessage, encodeCbor, encodeMessage, type Stream } from "@fieldloop/protocol";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratchFolder } from "../../testing/package.test.kit.js";
import { decodeRecord, encodeRecord, scanRecords } from "./record.js";
import { Spool, withPrevious } from "./spool.js";
import type { SpoolEntry } from "./stream-log.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(() => folder.remove());

interface Evicted {
  stream: Stream;
  records: number;
  bytes: number;
}

function open(
  options: { directory?: string; boot?: number; bytesMax?: number; evicted?: Evicted[] } = {},
): Promise<Spool> {
  return Spool.open({
    directory: options.directory ?? join(folder.path, "spool"),
    boot: options.boot ?? 1,
    bytesMax: options.bytesMax ?? 1_000_000_000,
    onDurable: () => undefined,
    onEvicted: (stream, records, bytes) => options.evicted?.push({ stream, records, bytes }),
    onStorage: () => undefined,
  });
}

const plain = { worth: 0.5, protected: false };

function message(boot: number, text: string, padding = 0): (seq: number) => Uint8Array {
  return (seq) => encodeCbor({ boot, seq, prev: 0, text, padding: new Uint8Array(padding) });
}

/** Sequence numbers that wait in a stream, in order. */
function waiting(spool: Spool, stream: Stream): { boot: number; seq: number }[] {
  const found: { boot: number; seq: number }[] = [];
  for (let at: SpoolEntry | undefined = spool.next(stream, undefined); at; at = spool.next(stream, at)) {
    found.push({ boot: at.boot, seq: at.seq });
  }
  return found;
}

describe("record", () => {
  it("round-trips, and any changed or missing byte is noticed", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.nat(1000),
        fc.nat(1_000_000),
        fc.boolean(),
        fc.nat(10_000),
        fc.integer({ min: 1, max: 255 }),
        (payload, boot, seq, isProtected, place, flip) => {
          const bytes = encodeRecord({ boot, seq, group: seq, protected: isProtected, worth: 0.25, payload });
          expect(decodeRecord(bytes, 0)).toMatchObject({ boot, seq, protected: isProtected, worth: 0.25 });
          expect(decodeRecord(bytes.subarray(0, bytes.length - 1), 0)).toBeUndefined();
          const harmed = Buffer.from(bytes);
          harmed[place % harmed.length]! ^= flip;
          expect(decodeRecord(harmed, 0)).toBeUndefined();
        },
      ),
    );
  });

  it("never throws on garbage", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (garbage) => {
        const { goodBytes } = scanRecords(Buffer.from(garbage));
        expect(goodBytes).toBeLessThanOrEqual(garbage.length);
      }),
    );
  });
});

describe("Spool", () => {
  it("sends nothing that is not on disk, and forgets only what is acknowledged", async () => {
    const spool = await open();
    for (let index = 0; index < 5; index++) spool.append("event", plain, message(1, `e${index}`));
    expect(waiting(spool, "event")).toEqual([]);
    await spool.flush();
    expect(waiting(spool, "event").map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5]);
    expect(spool.acknowledge({ stream: "event", boot: 1, seq: 3 })).toBe(3);
    expect(spool.acknowledge({ stream: "event", boot: 1, seq: 3 })).toBe(0);
    expect(waiting(spool, "event").map(({ seq }) => seq)).toEqual([4, 5]);
    await spool.close();
  });

  it("names the predecessor of the moment", async () => {
    const spool = await open();
    for (let index = 0; index < 3; index++) spool.append("event", plain, message(1, `e${index}`));
    await spool.flush();
    const entries = (): SpoolEntry[] => {
      const first = spool.next("event", undefined)!;
      const second = spool.next("event", first);
      return second ? [first, second] : [first];
    };
    const prevOf = async (entry: SpoolEntry): Promise<unknown> => {
      const { decodeCbor } = await import("@fieldloop/protocol");
      return (decodeCbor(await spool.message("event", entry)) as { prev: number }).prev;
    };
    expect(await prevOf(entries()[0]!)).toBe(0);
    expect(await prevOf(entries()[1]!)).toBe(1);
    spool.acknowledge({ stream: "event", boot: 1, seq: 1 });
    expect(await prevOf(entries()[0]!)).toBe(0);
    await spool.close();
  });

  it("patches prev in both wire forms and nothing else", () => {
    const event = encodeMessage("event", {
      boot: 3,
      seq: 9,
      prev: 0,
      time: 5,
      data: { type: "command_result", command: "c" },
    });
    expect(decodeMessage("event", withPrevious(event, 7))).toEqual({
      ...decodeMessage("event", event),
      prev: 7,
    });
    expect(withPrevious(encodeCbor([1, 2, 0, "x"]), 5)).toEqual(encodeCbor([1, 2, 5, "x"]));
  });

  it("comes back after every cut of the tail with whole records only", async () => {
    const spool = await open();
    for (let index = 0; index < 3; index++) spool.append("event", plain, message(1, `e${index}`, index));
    await spool.flush();
    await spool.close();
    const segment = join(folder.path, "spool", "event", "0000000001.seg");
    const whole = readFileSync(segment);
    const { records } = scanRecords(whole);
    const boundaries = [...records.map(({ offset }) => offset), whole.length];
    for (let length = 0; length <= whole.length; length++) {
      const directory = join(folder.path, `cut-${length}`);
      mkdirSync(join(directory, "event"), { recursive: true });
      writeFileSync(join(directory, "event", "0000000001.seg"), whole.subarray(0, length));
      const reopened = await open({ directory, boot: 2 });
      const complete = boundaries.filter((boundary) => boundary > 0 && boundary <= length).length;
      expect(waiting(reopened, "event").map(({ seq }) => seq)).toEqual(
        Array.from({ length: complete }, (_, index) => index + 1),
      );
      expect(reopened.cutBytes).toBe(length - boundaries[complete]!);
      if (length % 10 === 0) {
        reopened.append("event", plain, message(2, "after"));
        await reopened.flush();
        expect(waiting(reopened, "event").at(-1)).toEqual({ boot: 2, seq: 1 });
      }
      await reopened.close();
    }
  });

  it("cuts garbage behind the tail and a flipped byte in the middle, and counts both", async () => {
    const spool = await open();
    for (let index = 0; index < 10; index++) spool.append("predictions", plain, message(1, "p"));
    await spool.flush();
    await spool.close();
    const segment = join(folder.path, "spool", "predictions", "0000000001.seg");
    appendFileSync(segment, Buffer.from("what a torn write leaves behind"));
    let reopened = await open({ boot: 2 });
    expect(reopened.cutBytes).toBe(31);
    expect(waiting(reopened, "predictions")).toHaveLength(10);
    await reopened.close();
    const bytes = readFileSync(segment);
    bytes[Math.floor(bytes.length / 2)]! ^= 1;
    writeFileSync(segment, bytes);
    reopened = await open({ boot: 3 });
    const left = waiting(reopened, "predictions").length;
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThan(10);
    expect(reopened.cutBytes).toBeGreaterThan(0);
    await reopened.close();
  });

  it("does not send again what was acknowledged before an orderly stop", async () => {
    const spool = await open();
    for (let index = 0; index < 10; index++) spool.append("event", plain, message(1, "e"));
    await spool.flush();
    spool.acknowledge({ stream: "event", boot: 1, seq: 7 });
    await spool.close();
    const reopened = await open({ boot: 2 });
    expect(waiting(reopened, "event").map(({ seq }) => seq)).toEqual([8, 9, 10]);
    await reopened.close();
  });

  it("skips the second copy of records that a failed write left behind", async () => {
    const spool = await open();
    for (let index = 0; index < 4; index++) spool.append("event", plain, message(1, "e"));
    await spool.flush();
    await spool.close();
    const directory = join(folder.path, "spool", "event");
    copyFileSync(join(directory, "0000000001.seg"), join(directory, "0000000002.seg"));
    truncateSync(join(directory, "0000000001.seg"), statSync(join(directory, "0000000001.seg")).size - 5);
    const reopened = await open({ boot: 2 });
    expect(waiting(reopened, "event").map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
    await reopened.close();
  });

  it("evicts the samples worth least, whole; then thins predictions; and never touches protected events", async () => {
    const evicted: Evicted[] = [];
    const spool = await open({ bytesMax: 100_000, evicted });
    for (let index = 0; index < 10; index++) {
      spool.appendGroup("sample", { worth: index / 10, protected: false }, 2, message(1, "s", 5_000));
    }
    await spool.flush();
    spool.append("event", { worth: 1, protected: true }, message(1, "deployment", 1_000));
    for (let index = 0; index < 20; index++) spool.append("predictions", plain, message(1, "p", 200));
    await spool.flush();
    expect(spool.bytes).toBeLessThanOrEqual(100_000);
    const samples = waiting(spool, "sample").map(({ seq }) => seq);
    expect(samples.length % 2).toBe(0);
    expect(samples.at(-1)).toBe(20);
    expect(samples[0]).toBeGreaterThan(1);
    expect(waiting(spool, "predictions")).toHaveLength(20);
    for (let index = 0; index < 150; index++) {
      spool.append("event", { worth: 1, protected: true }, message(1, "deployment", 1_000));
      if (index % 25 === 0) await spool.flush();
    }
    await spool.flush();
    expect(waiting(spool, "event")).toHaveLength(151);
    expect(waiting(spool, "sample")).toHaveLength(0);
    expect(evicted.reduce((sum, item) => sum + item.records, 0)).toBe(spool.recordsEvicted);
    await spool.close();
    const reopened = await open({ boot: 2, bytesMax: 100_000 });
    expect(waiting(reopened, "event")).toHaveLength(151);
    expect(waiting(reopened, "sample")).toHaveLength(0);
    await reopened.close();
  });

  it("thins predictions evenly over time", async () => {
    const spool = await open({ bytesMax: 60_000 });
    for (let index = 0; index < 100; index++) spool.append("predictions", plain, message(1, "p", 1_000));
    await spool.flush();
    const left = waiting(spool, "predictions").map(({ seq }) => seq);
    expect(left.length).toBeGreaterThan(30);
    expect(left.length).toBeLessThan(60);
    expect(left.at(-1)).toBe(100);
    const gaps = left.slice(1).map((seq, index) => seq - left[index]!);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(4);
    await spool.close();
  });

  it("leaves a record in flight alone", async () => {
    const spool = await open({ bytesMax: 10_000 });
    spool.append("sample", { worth: 0, protected: false }, message(1, "s", 4_000));
    await spool.flush();
    spool.next("sample", undefined)!.inFlight = true;
    for (let index = 0; index < 3; index++)
      spool.append("sample", { worth: 1, protected: false }, message(1, "s", 4_000));
    await spool.flush();
    expect(waiting(spool, "sample").map(({ seq }) => seq)).toContain(1);
    await spool.close();
  });

  it("holds any sequence of appends, acknowledgements, cuts and starts to its order", async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("append" as const), count: fc.integer({ min: 1, max: 5 }) }),
      fc.record({
        kind: fc.constant("acknowledge" as const),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      fc.record({ kind: fc.constant("kill" as const), cut: fc.nat(60) }),
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        let directory = join(folder.path, `run-${run++}`);
        let boot = 1;
        let spool = await open({ directory, boot });
        let acknowledged = { boot: 0, seq: 0 };
        for (const action of steps) {
          if (action.kind === "append") {
            for (let index = 0; index < action.count; index++)
              spool.append("event", plain, message(boot, "e"));
            await spool.flush();
          } else if (action.kind === "acknowledge") {
            const all = waiting(spool, "event");
            const last = all[Math.floor(action.share * all.length) - 1];
            if (last) spool.acknowledge({ stream: "event", ...last });
            if (last) acknowledged = last;
          } else {
            // What is on disk now, perhaps with a torn tail, is what the next start finds.
            const copy = join(folder.path, `run-${run++}`);
            cpSync(directory, copy, { recursive: true });
            tearTail(join(copy, "event"), action.cut);
            await spool.close();
            directory = copy;
            spool = await open({ directory, boot: ++boot });
            // Without an orderly stop what was acknowledged may be sent once more, and is dropped as a duplicate.
            acknowledged = { boot: 0, seq: 0 };
          }
          const left = waiting(spool, "event");
          const order = left.map((entry) => entry.boot * 1_000_000 + entry.seq);
          expect(order).toEqual([...new Set(order)].sort((a, b) => a - b));
          if (action.kind !== "kill") {
            expect(order.every((at) => at > acknowledged.boot * 1_000_000 + acknowledged.seq)).toBe(true);
          }
        }
        await spool.close();
      }),
      { numRuns: 25 },
    );
  });
});

function tearTail(directory: string, bytes: number): void {
  const last = readdirSync(directory).sort().at(-1);
  if (!last) return;
  const path = join(directory, last);
  truncateSync(path, Math.max(0, statSync(path).size - bytes));
}
