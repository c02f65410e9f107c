import { describe, expect, it } from "vitest";
import { FrameQueue } from "./frame-queue.js";
import { FreshStreams } from "./fresh-streams.js";
import type { SourceFrame } from "./sources/source.js";

function frame(time: number, more: Partial<SourceFrame> = {}): SourceFrame {
  return { frame: { kind: "row", values: { n: time } }, time, ...more };
}

describe("the first frame after a gap", () => {
  it("leaves its mark to the next one of its stream where it finds no place", () => {
    const queue = new FrameQueue(2);
    queue.offer(frame(1, { fresh: true, stream: "a" }));
    queue.offer(frame(2, { stream: "b" }));
    queue.offer(frame(3, { stream: "a", isGuest: true }));
    queue.offer(frame(4, { stream: "a" }));
    queue.offer(frame(5, { stream: "a" }));
    // 1, 2 and 3 are gone.
    expect(queue.dropped).toBe(3);
    expect([queue.tryTake(), queue.tryTake()]).toEqual([
      frame(4, { fresh: true, stream: "a" }),
      frame(5, { stream: "a" }),
    ]);
  });

  it("leaves it over any number of frames that are dropped", () => {
    const queue = new FrameQueue(1);
    queue.offer(frame(0, { fresh: true }));
    for (let time = 1; time <= 5; time++) queue.offer(frame(time));
    expect(queue.tryTake()).toEqual(frame(5, { fresh: true }));
    queue.offer(frame(6));
    expect(queue.tryTake()).toEqual(frame(6));
  });

  it("remembers no more streams than its limit, the oldest go", () => {
    const streams = new FreshStreams();
    for (let index = 0; index < 2_000; index++) streams.mark(String(index));
    expect(streams.pass(frame(1, { stream: "0" })).fresh).toBeUndefined();
    expect(streams.pass(frame(1, { stream: "1999" })).fresh).toBe(true);
    expect(streams.pass(frame(2, { stream: "1999" })).fresh).toBeUndefined();
  });
});
