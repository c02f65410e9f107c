import type { Clock } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";

const WINDOW_MS = 60_000;

/** Counts failures per address in windows of a minute. */
export class Throttle {
  readonly #perMinute: number;
  readonly #clock: Clock;
  readonly #counts = new Map<string, { since: number; count: number }>();

  constructor(perMinute: number, clock: Clock) {
    this.#perMinute = perMinute;
    this.#clock = clock;
  }

  /** Whether another try is allowed now. */
  allows(address: string): boolean {
    const entry = this.#counts.get(address);
    return !entry || this.#clock.now() - entry.since >= WINDOW_MS || entry.count < this.#perMinute;
  }

  failed(address: string): void {
    const now = this.#clock.now();
    const entry = this.#counts.get(address);
    if (entry && now - entry.since < WINDOW_MS) {
      entry.count++;
      return;
    }
    if (this.#counts.size >= SERVER_LIMITS.loginAddressesMax) this.#forgetOld(now);
    this.#counts.set(address, { since: now, count: 1 });
  }

  #forgetOld(now: number): void {
    for (const [address, entry] of this.#counts) {
      if (now - entry.since >= WINDOW_MS) this.#counts.delete(address);
    }
    // Still full of recent ones: the oldest gives way, so that memory stays bounded.
    if (this.#counts.size >= SERVER_LIMITS.loginAddressesMax)
      this.#counts.delete(this.#counts.keys().next().value!);
  }
}
