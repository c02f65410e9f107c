import type { ModelInput } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { FrameQueue } from "./frame-queue.js";
import { Handover } from "./handover.js";
import type { SourceFrame } from "./sources/source.js";

const LONG = 8;
const SHORT = 4;
/** The next model's only input: shorter windows than those that wait. */
const NEXT = [{ kind: "window", length: SHORT, channels: 1 } as ModelInput];

function windowOf(length: number, more: Partial<SourceFrame> = {}): SourceFrame {
  return { frame: { kind: "window", samples: new Float32Array(length) }, time: 0, ...more };
}

let queue: FrameQueue;
let handover: Handover;
let swapped: number;
const swap = (): void => void swapped++;

beforeEach(() => {
  vi.useFakeTimers();
  queue = new FrameQueue(16);
  handover = new Handover(queue);
  swapped = 0;
});
afterEach(() => void vi.useRealTimers());

/** What the lane does with a turn: takes frames, runs them, ends it. */
function turn(batch: number): number {
  const count = handover.turnBegins(batch);
  for (let taken = 0; taken < count; taken++) queue.tryTake();
  return count;
}

describe("a model that takes over", () => {
  it("does so at once where it can take what waits", () => {
    queue.offer(windowOf(SHORT));
    handover.begin(swap, NEXT);
    expect(swapped).toBe(1);
  });

  it("waits for the turn in hand", () => {
    turn(1);
    handover.begin(swap, NEXT);
    expect(swapped).toBe(0);
    handover.turnEnds();
    expect(swapped).toBe(1);
  });

  it("leaves the frames that were made for the one before to that one, and no other", () => {
    for (const length of [LONG, LONG, LONG]) queue.offer(windowOf(length));
    handover.begin(swap, NEXT);
    queue.offer(windowOf(SHORT));
    expect(turn(2)).toBe(2);
    handover.turnEnds();
    expect(swapped).toBe(0);
    expect(turn(2)).toBe(1);
    handover.turnEnds();
    expect(swapped).toBe(1);
    expect(queue.length).toBe(1);
    expect(queue.dropped).toBe(0);
  });

  it("does not wait for what another program pushed", () => {
    queue.offer(windowOf(LONG, { isGuest: true }));
    handover.begin(swap, NEXT);
    expect(swapped).toBe(1);
  });

  it("does not wait for ever: frames that the one before does not get to are dropped and counted", () => {
    queue.offer(windowOf(LONG));
    queue.offer(windowOf(LONG));
    handover.begin(swap, NEXT);
    queue.offer(windowOf(SHORT));
    vi.advanceTimersByTime(AGENT_LIMITS.frameCatchUpMs);
    expect(swapped).toBe(1);
    expect([queue.dropped, queue.length]).toEqual([2, 1]);
  });

  it("goes on where the lane was closed", () => {
    queue.offer(windowOf(LONG));
    handover.begin(swap, NEXT);
    queue.close();
    handover.settle();
    expect(swapped).toBe(1);
  });
});
