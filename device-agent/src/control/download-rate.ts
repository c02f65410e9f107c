import type { Clock } from "../clock.js";

export interface RateTerms {
  /** Bytes a second below which a server is too slow. */
  readonly bytesPerSecondMin: number;
  /** Over so much time of waiting for it. */
  readonly windowMs: number;
  /** Time without a byte after which nothing is expected any more. */
  readonly stallMs: number;
}

/**
 * How fast a server gives what it was asked for. Only the time in which the device waits for bytes counts: what its own budget holds back
 * is not the server's fault. Meets the slow retrieval attack (TUF, Uptane): some bytes now and then, for ever.
 */
export class DownloadRate {
  readonly #clock: Clock;
  readonly #terms: RateTerms;
  #waitedMs = 0;
  #bytes = 0;

  constructor(clock: Clock, terms: RateTerms) {
    this.#clock = clock;
    this.#terms = terms;
  }

  /** Waits for the next part. Resolves with "stalled" in its place where none came; the caller ends the connection then. */
  async next<Part>(read: () => Promise<Part>): Promise<Part | "stalled"> {
    const begin = this.#clock.monotonic();
    let timer: NodeJS.Timeout | undefined;
    const stalled = new Promise<"stalled">((resolve) => {
      timer = setTimeout(() => resolve("stalled"), this.#terms.stallMs);
    });
    try {
      return await Promise.race([read(), stalled]);
    } finally {
      clearTimeout(timer);
      this.#waitedMs += this.#clock.monotonic() - begin;
    }
  }

  /** True where a whole window went by with too few bytes. */
  isTooSlow(bytes: number): boolean {
    this.#bytes += bytes;
    const { windowMs, bytesPerSecondMin } = this.#terms;
    if (this.#waitedMs < windowMs) return false;
    const isSlow = this.#bytes < (bytesPerSecondMin * this.#waitedMs) / 1_000;
    this.#waitedMs = 0;
    this.#bytes = 0;
    return isSlow;
  }
}
