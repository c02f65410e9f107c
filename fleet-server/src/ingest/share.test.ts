import type { PredictionColumns } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { SERVER_LIMITS } from "../limits.js";
import type { Decoded } from "./message.js";
import { nextShare } from "./share.js";

interface Item {
  readonly device: string;
  readonly at: number;
  decoded?: Decoded;
}

/** A batch whose rows lie so many minutes apart: each in a bucket of its own. */
function batch(rows: number, minutesApart: number): Decoded {
  const time = Float64Array.from({ length: rows }, (_, at) => at * minutesApart * 60_000);
  return { kind: "predictions", message: { time, count: rows } as unknown as PredictionColumns };
}

const items = (device: string, count: number, from = 0): Item[] =>
  Array.from({ length: count }, (_, at) => ({ device, at: from + at }));

describe("the next unit of work", () => {
  it("takes everything where it is little, in the order of arrival", () => {
    const queue = [...items("a", 3), ...items("b", 2), ...items("a", 1, 3)];
    const { taken, left } = nextShare(queue, (item) => (item.decoded = batch(30, 0)));
    expect(taken).toEqual(queue);
    expect(left).toEqual([]);
  });

  it("takes of one device no more than its share, and all of the others", () => {
    const queue = [...items("greedy", 100), ...items("modest", 1)];
    const { taken, left } = nextShare(queue, (item) => {
      item.decoded = item.device === "greedy" ? batch(500, 1) : batch(30, 0);
    });
    expect(taken.filter(({ device }) => device === "greedy").map(({ at }) => at)).toEqual([0, 1, 2, 3]);
    expect(taken.at(-1)?.device).toBe("modest");
    expect(left.map(({ at }) => at)).toEqual(Array.from({ length: 96 }, (_, at) => at + 4));
  });

  it("takes one message that alone costs more than a share, so that nothing waits for ever", () => {
    let queue = items("a", 3);
    const rounds: number[] = [];
    while (queue.length > 0) {
      const { taken, left } = nextShare(queue, (item) => (item.decoded = batch(2_000, 1)));
      rounds.push(taken.length);
      queue = left;
    }
    expect(rounds).toEqual([1, 1, 1]);
  });

  it("ends a unit at its number of messages", () => {
    const { taken, left } = nextShare(items("a", SERVER_LIMITS.ingestCommitMessagesMax + 5), (item) => {
      item.decoded = batch(1, 0);
    });
    expect([taken.length, left.length]).toEqual([SERVER_LIMITS.ingestCommitMessagesMax, 5]);
  });
});
