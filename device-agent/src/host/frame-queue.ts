import type { SourceFrame } from "./sources/source.js";

/**
 * Between a source and the model: a few places, then frames are dropped and counted. A camera never lags: the oldest
 * frame goes when a new one finds no place.
 */
export class FrameQueue {
  readonly #capacity: number;
  #frames: SourceFrame[] = [];
  #taker: ((frame: SourceFrame | undefined) => void) | undefined;
  #spaceWaiters: (() => void)[] = [];
  #closed = false;
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
  get isFull(): boolean {
    return this.#frames.length >= this.#capacity;
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
      taker(frame);
      return;
    }
    if (this.isFull) this.#drop(this.#frames.shift()!);
    this.#frames.push(frame);
  }

  /** Resolves when a frame can be offered without dropping one; for sources that can wait. */
  async space(): Promise<void> {
    while (this.isFull && !this.#closed) {
      await new Promise<void>((resolve) => this.#spaceWaiters.push(resolve));
    }
  }

  /** The oldest frame, or undefined once the queue is closed. One taker at a time. */
  take(): Promise<SourceFrame | undefined> {
    const frame = this.#frames.shift();
    this.#wakeWaiters();
    if (frame || this.#closed) return Promise.resolve(frame);
    return new Promise((resolve) => {
      this.#taker = resolve;
    });
  }

  /** No frame comes out any more; those inside are dropped. */
  close(): void {
    this.#closed = true;
    for (const frame of this.#frames) this.#drop(frame);
    this.#frames = [];
    this.#taker?.(undefined);
    this.#taker = undefined;
    this.#wakeWaiters();
  }

  #drop(frame: SourceFrame): void {
    this.#dropped++;
    frame.answer?.(undefined);
  }

  #wakeWaiters(): void {
    const waiters = this.#spaceWaiters;
    this.#spaceWaiters = [];
    for (const wake of waiters) wake();
  }
}
