/** A rate with a burst: `take` spends, time refills. Over-spending is allowed once and paid for by waiting. */
export class TokenBucket {
  readonly #perMs: number;
  readonly #burst: number;
  #tokens: number;
  #last: number;

  constructor(perSecond: number, burst: number, now: number = performance.now()) {
    this.#perMs = perSecond / 1_000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#last = now;
  }

  /** @returns milliseconds to wait until nothing is owed */
  take(count: number, now: number = performance.now()): number {
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#last) * this.#perMs) - count;
    this.#last = now;
    return this.waitMs();
  }

  waitMs(): number {
    return this.#tokens >= 0 ? 0 : -this.#tokens / this.#perMs;
  }
}
