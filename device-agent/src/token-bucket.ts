/**
 * A token bucket with debt: whoever comes while tokens are left may take more than there are, and the next waits longer.
 * So a message larger than the bucket still travels, and the mean rate holds.
 */
export class TokenBucket {
  readonly #perMs: number;
  readonly #capacity: number;
  #tokens: number;
  #at: number;

  /** Starts full. Times are monotonic milliseconds. */
  constructor(perSecond: number, capacity: number, nowMs: number) {
    this.#perMs = perSecond / 1000;
    this.#capacity = capacity;
    this.#tokens = capacity;
    this.#at = nowMs;
  }

  /** What is left now; below zero after a debt. */
  tokens(nowMs: number): number {
    this.#tokens = Math.min(this.#capacity, this.#tokens + (nowMs - this.#at) * this.#perMs);
    this.#at = nowMs;
    return this.#tokens;
  }

  take(amount: number, nowMs: number): void {
    this.#tokens = this.tokens(nowMs) - amount;
  }

  /** Milliseconds until there is something to take; Infinity for a rate of zero. */
  waitMs(nowMs: number): number {
    const tokens = this.tokens(nowMs);
    return tokens > 0 ? 0 : (1 - tokens) / this.#perMs;
  }
}
