import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeAck, encodeAck } from "./ack.js";
import { judgeDelivery, STREAMS } from "./delivery.js";

describe("judgeDelivery", () => {
  const cursor = { boot: 3, seq: 10 };
  it.each([
    ["the next message", { boot: 3, seq: 11, prev: 10 }, "accept"],
    ["the first of what is left after an acknowledgement", { boot: 3, seq: 11, prev: 0 }, "accept"],
    ["a message behind an evicted one", { boot: 3, seq: 13, prev: 10 }, "accept"],
    ["the same message again", { boot: 3, seq: 10, prev: 9 }, "duplicate"],
    ["a message whose predecessor is missing", { boot: 3, seq: 13, prev: 12 }, "gap"],
    ["the first of a newer boot", { boot: 4, seq: 1, prev: 0 }, "accept"],
    ["the second of a newer boot before its first", { boot: 4, seq: 2, prev: 1 }, "gap"],
    ["an older boot", { boot: 2, seq: 99, prev: 0 }, "superseded"],
  ] as const)("judges %s", (_, message, verdict) => {
    expect(judgeDelivery(cursor, message)).toBe(verdict);
  });

  it("stores each message exactly once under loss, duplication and restarts of either side", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("send", "lose", "ack", "resend", "reboot"), { maxLength: 200 }),
        (steps) => {
          let boot = 1;
          let seq = 0;
          let unacked: { boot: number; seq: number }[] = [];
          const written: string[] = [];
          const stored: string[] = [];
          let durable: { boot: number; seq: number } | undefined;
          const offer = (index: number, lost: boolean): void => {
            const record = unacked[index]!;
            const before = unacked[index - 1];
            const prev = before && before.boot === record.boot ? before.seq : 0;
            if (lost || judgeDelivery(durable, { ...record, prev }) !== "accept") return;
            stored.push(`${record.boot}-${record.seq}`);
            durable = record;
          };
          /** A device sends a boot's records only when none of an older boot is left. */
          const sendable = (): number => unacked.filter((record) => record.boot === unacked[0]?.boot).length;
          for (const step of steps) {
            if (step === "reboot") {
              boot += 1;
              seq = 0;
            } else if (step === "send" || step === "lose") {
              seq += 1;
              unacked.push({ boot, seq });
              written.push(`${boot}-${seq}`);
              if (sendable() === unacked.length) offer(unacked.length - 1, step === "lose");
            } else if (step === "resend") {
              for (let index = 0; index < sendable(); index++) offer(index, false);
            } else {
              const at = durable;
              unacked = unacked.filter(
                (record) => !at || record.boot > at.boot || (record.boot === at.boot && record.seq > at.seq),
              );
            }
          }
          while (unacked.length > 0) {
            for (let index = 0; index < sendable(); index++) offer(index, false);
            const at = durable!;
            unacked = unacked.filter(
              (record) => record.boot > at.boot || (record.boot === at.boot && record.seq > at.seq),
            );
          }
          expect(stored).toEqual(written);
        },
      ),
      { numRuns: 1_000 },
    );
  });
});

describe("acknowledgement", () => {
  it("travels in a few bytes and comes back", () => {
    const acks = STREAMS.map((stream, index) => ({ stream, boot: 4, seq: 1000 + index }));
    expect(decodeAck(encodeAck(acks))).toEqual(acks);
    expect(encodeAck([acks[2]!]).length).toBeLessThanOrEqual(7);
  });
});
