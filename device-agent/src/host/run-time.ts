/** Weight of the newest run in a running mean. */
const NEWEST_WEIGHT = 0.1;
/** A batch must save this share of the time of its frames one by one. */
const WORTHWHILE = 0.95;
/** Every so many turns the other way is tried again: what is faster changes with the load of the machine. */
const RETRY_TURNS = 64;

/** What a frame costs, alone and in a batch; decides how many run together. */
export class RunTime {
  #singleMs = 0;
  #batchedMs = 0;
  #turns = 0;

  /** Another model runs from now on. */
  forget(): void {
    this.#singleMs = 0;
    this.#batchedMs = 0;
    this.#turns = 0;
  }

  /** A run of `count` frames took `tookMs`. */
  note(count: number, tookMs: number): void {
    const perFrame = tookMs / count;
    if (count === 1) this.#singleMs = mean(this.#singleMs, perFrame);
    else this.#batchedMs = mean(this.#batchedMs, perFrame);
  }

  /** Milliseconds that a run of `count` frames usually takes; 0 before the first. */
  expectedMs(count: number): number {
    const perFrame = count === 1 ? this.#singleMs : this.#batchedMs || this.#singleMs;
    return perFrame * count;
  }

  /** How many of `waiting` frames to run together, `batchMax` at most. One where nothing else waits. */
  batchOf(waiting: number, batchMax: number): number {
    const count = Math.min(waiting, batchMax);
    if (count < 2) return Math.min(waiting, 1);
    this.#turns++;
    if (this.#batchedMs === 0) return this.#singleMs === 0 ? 1 : count;
    const helps = this.#batchedMs < this.#singleMs * WORTHWHILE;
    const tryOther = this.#turns % RETRY_TURNS === 0;
    return helps !== tryOther ? count : 1;
  }
}

function mean(before: number, newest: number): number {
  return before === 0 ? newest : before + NEWEST_WEIGHT * (newest - before);
}
