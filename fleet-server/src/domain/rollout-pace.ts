const MINUTE_SECONDS = 60;
const SECOND_MS = 1_000;

/**
 * Offers within their rate: never more than `perMinute` in any sixty seconds, and no more than a sixtieth of them (at least one) in
 * a second, so that a large wave does not begin with a minute's worth at once.
 */
export class Pace {
  readonly #perMinute: number;
  readonly #perSecond: number;
  /** Offers by second. */
  readonly #seconds = new Map<number, number>();

  constructor(perMinute: number) {
    this.#perMinute = perMinute;
    this.#perSecond = Math.ceil(perMinute / MINUTE_SECONDS);
  }

  note(time: number): void {
    const second = Math.floor(time / SECOND_MS);
    this.#seconds.set(second, (this.#seconds.get(second) ?? 0) + 1);
  }

  /** Offers that may be made now. A second counts as a whole, so it is never more than the rate, and at times a little less. */
  left(now: number): number {
    const second = Math.floor(now / SECOND_MS);
    let minute = 0;
    for (const [at, count] of this.#seconds) {
      if (at < second - MINUTE_SECONDS) this.#seconds.delete(at);
      else minute += count;
    }
    const lately = this.#seconds.get(second) ?? 0;
    return Math.max(0, Math.min(this.#perMinute - minute, this.#perSecond - lately));
  }
}
