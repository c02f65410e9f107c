/**
 * Calls `work` `fps` times a second on average. A call that comes late is made up for, at most `catchUpMax` times in a row;
 * what is missed beyond is told to `onMissed`, as a camera's driver would lose it.
 */
export class Pace {
  readonly #intervalMs: number;
  readonly #now: () => number;
  readonly #work: (dueMs: number) => void;
  readonly #onMissed: (count: number) => void;
  #timer: NodeJS.Timeout | undefined;
  #due = 0;

  static readonly catchUpMax = 3;

  constructor(options: {
    fps: number;
    now: () => number;
    /** Given the monotonic time at which it was due: when a camera would have exposed. */
    work: (dueMs: number) => void;
    onMissed: (count: number) => void;
  }) {
    this.#intervalMs = 1000 / options.fps;
    this.#now = options.now;
    this.#work = options.work;
    this.#onMissed = options.onMissed;
  }

  start(): void {
    this.#due = this.#now() + this.#intervalMs;
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#tick(), Math.max(0, this.#due - this.#now()));
  }

  #tick(): void {
    const late = Math.floor((this.#now() - this.#due) / this.#intervalMs);
    if (late > Pace.catchUpMax) {
      const missed = late - Pace.catchUpMax;
      this.#due += missed * this.#intervalMs;
      this.#onMissed(missed);
    }
    const due = this.#due;
    this.#due += this.#intervalMs;
    this.#work(due);
    if (this.#timer !== undefined) this.#schedule();
  }
}
