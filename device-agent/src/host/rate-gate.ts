/** What is left of a turn that was missed counts for the next, so that a rate just below the source's is reached as well. */
const CREDIT_MAX = 2;

/** Lets at most so many frames a second through, evenly. Two bounds may apply at once: the lower one counts. */
export class RateGate {
  readonly #own: number;
  #limit = Number.POSITIVE_INFINITY;
  #credit = 1;
  #at: number;

  /** Frames a second; undefined lets all through. Times are monotonic milliseconds. */
  constructor(rateMax: number | undefined, nowMs: number) {
    this.#own = rateMax ?? Number.POSITIVE_INFINITY;
    this.#at = nowMs;
  }

  /** The lower one of its own rate and the limit; Infinity where there is neither. */
  get rateMax(): number {
    return Math.min(this.#own, this.#limit);
  }

  /** Sets the second bound, or takes it away. */
  limit(rateMax: number | undefined): void {
    this.#limit = rateMax ?? Number.POSITIVE_INFINITY;
  }

  /** True where a frame may go through now; it counts then. */
  take(nowMs: number): boolean {
    if (this.waitMs(nowMs) > 0) return false;
    if (this.rateMax !== Number.POSITIVE_INFINITY) this.#credit -= 1;
    return true;
  }

  /** Milliseconds until the next frame may go through. */
  waitMs(nowMs: number): number {
    const rate = this.rateMax;
    if (rate === Number.POSITIVE_INFINITY) {
      this.#at = nowMs;
      return 0;
    }
    this.#credit = Math.min(CREDIT_MAX, this.#credit + ((nowMs - this.#at) / 1000) * rate);
    this.#at = nowMs;
    return this.#credit >= 1 ? 0 : ((1 - this.#credit) / rate) * 1000;
  }
}
