import { AGENT_LIMITS } from "../limits.js";
import { FreshStreams } from "./fresh-streams.js";
import type { SourceFrame } from "./sources/source.js";

/**
 * Between a source and the model: a few places, then frames are dropped and counted. A camera never lags: the oldest
 * frame goes when a new one finds no place.
 */
export class FrameQueue {
  #capacity: number;
  #shrinkTo: number | undefined;
  readonly #frames: SourceFrame[] = [];
  /** Called when a frame came in; for whoever takes with {@link tryTake}. */
  onFrame: (() => void) | undefined;
  #taker: ((frame: SourceFrame | undefined) => void) | undefined;
  #spaceWaiters: (() => void)[] = [];
  readonly #fresh = new FreshStreams();
  #closed = false;
  /** Of the frames that wait. */
  #bytes = 0;
  #dropped = 0;
  #seen = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get dropped(): number {
    return this.#dropped;
  }
  get seen(): number {
    return this.#seen;
  }
  get length(): number {
    return this.#frames.length;
  }
  get isFull(): boolean {
    const { length } = this.#frames;
    return (
      length >= this.#capacity ||
      (length >= AGENT_LIMITS.frameQueueMax && this.#bytes > AGENT_LIMITS.frameQueueBytesMax)
    );
  }

  /** More places, or fewer at once: then frames go at the next offer. */
  resize(capacity: number): void {
    this.#capacity = capacity;
    this.#shrinkTo = undefined;
    this.#wakeWaiters();
  }

  /** Fewer places as soon as that drops nothing. */
  shrinkWhenDrained(capacity: number): void {
    this.#shrinkTo = capacity;
    this.#shrink();
  }

  #shrink(): void {
    if (this.#shrinkTo === undefined || this.#frames.length >= this.#shrinkTo) return;
    this.#capacity = this.#shrinkTo;
    this.#shrinkTo = undefined;
  }

  /** Frames that a source could not even offer in time. */
  noteMissed(count: number): void {
    this.#seen += count;
    this.#dropped += count;
  }

  /** Takes the frame, at the cost of the oldest one where there is no place. */
  offer(frame: SourceFrame): void {
    this.#seen++;
    if (this.#closed) {
      this.#drop(frame);
      return;
    }
    const taker = this.#taker;
    if (taker) {
      this.#taker = undefined;
      taker(this.#fresh.pass(frame));
      return;
    }
    while (this.isFull) this.#drop(this.#shift()!);
    this.#frames.push(frame);
    this.#bytes += frameBytes(frame);
    this.onFrame?.();
  }

  /** Resolves when there is a place; for sources that can wait. Whoever waits beside may take it first. */
  async space(): Promise<void> {
    while (this.isFull && !this.#closed) {
      await new Promise<void>((resolve) => this.#spaceWaiters.push(resolve));
    }
  }

  /** The oldest frame, or undefined once the queue is closed. One taker at a time. */
  take(): Promise<SourceFrame | undefined> {
    const frame = this.tryTake();
    if (frame || this.#closed) return Promise.resolve(frame);
    return new Promise((resolve) => {
      this.#taker = resolve;
    });
  }

  /** The oldest frame, where there is one. */
  tryTake(): SourceFrame | undefined {
    const frame = this.#shift();
    this.#shrink();
    this.#wakeWaiters();
    return frame && this.#fresh.pass(frame);
  }

  /** The last of the waiting frames that passes. */
  findLast(test: (frame: SourceFrame) => boolean): SourceFrame | undefined {
    return this.#frames.findLast(test);
  }

  /** How many frames wait up to this one, with it; 0 where it does not wait any more. */
  countTo(frame: SourceFrame): number {
    return this.#frames.indexOf(frame) + 1;
  }

  /** Drops the frames up to this one, with it. */
  dropTo(frame: SourceFrame): void {
    for (let count = this.countTo(frame); count > 0; count--) this.#drop(this.#shift()!);
    this.#wakeWaiters();
  }

  /** No frame comes out any more; those inside are dropped. */
  close(): void {
    this.#closed = true;
    for (let frame = this.#shift(); frame; frame = this.#shift()) this.#drop(frame);
    this.#taker?.(undefined);
    this.#taker = undefined;
    this.#wakeWaiters();
  }

  #shift(): SourceFrame | undefined {
    const frame = this.#frames.shift();
    if (frame) this.#bytes -= frameBytes(frame);
    return frame;
  }

  #drop(frame: SourceFrame): void {
    this.#dropped++;
    this.#fresh.lost(frame);
    frame.answer?.(undefined);
  }

  #wakeWaiters(): void {
    const waiters = this.#spaceWaiters;
    this.#spaceWaiters = [];
    for (const wake of waiters) wake();
  }
}

function frameBytes({ frame }: SourceFrame): number {
  switch (frame.kind) {
    case "encoded":
      return frame.bytes.length;
    case "pixels":
      return frame.data.length;
    case "window":
      return frame.samples.byteLength;
    case "row":
    case "tensors":
      return 0;
  }
}
