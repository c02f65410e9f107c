import { FieldloopError } from "@fieldloop/protocol";
import type { Clock } from "../../clock.js";

export interface RateLimits {
  readonly rateWindowMs: number;
  readonly rateBytesPerSecondMin: number;
}

/**
 * Against slow retrieval (TUF section 1.5.2): in every window at least the least rate, over all tries of one transfer. A sender that says
 * nothing at all is the stall timer's business. Time that the receiver itself needed does not count.
 */
export class RateGuard {
  readonly #clock: Clock;
  readonly #limits: RateLimits;
  #begin: number;
  #bytes = 0;

  constructor(clock: Clock, limits: RateLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.#begin = clock.monotonic();
  }

  /** @throws FieldloopError `download_too_slow` */
  note(url: string, bytes: number): void {
    this.#bytes += bytes;
    const elapsedMs = this.#clock.monotonic() - this.#begin;
    if (elapsedMs < this.#limits.rateWindowMs) return;
    const perSecond = (this.#bytes * 1000) / elapsedMs;
    if (perSecond < this.#limits.rateBytesPerSecondMin) {
      throw new FieldloopError(
        "download_too_slow",
        `Fetch "${url}": ${Math.round(perSecond)} bytes a second over ${Math.round(elapsedMs)} ms, at least ${this.#limits.rateBytesPerSecondMin} wanted`,
      );
    }
    this.#begin += elapsedMs;
    this.#bytes = 0;
  }

  /** Runs what is the receiver's own waiting. */
  async excluding(work: () => Promise<void>): Promise<void> {
    const begin = this.#clock.monotonic();
    try {
      await work();
    } finally {
      this.#begin += this.#clock.monotonic() - begin;
    }
  }
}
