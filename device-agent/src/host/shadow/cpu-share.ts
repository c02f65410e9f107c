import type { RandomSource } from "../../clock.js";
import { TokenBucket } from "../../token-bucket.js";

/** Weight of the newest frame in the mean cost of one. */
const NEWEST_WEIGHT = 0.1;
/** A wait for more than is ever saved up would be one for ever. */
const WAIT_SHARE_MAX = 0.5;

export interface CpuShareOptions {
  /** Of all cores' time, 0..1. */
  readonly shareMax: number;
  readonly cores: number;
  /** How many seconds of its share may be saved up. */
  readonly burstSeconds: number;
  readonly random: RandomSource;
  readonly nowMs: number;
}

/**
 * Says when the candidate may be shown a frame, from what the ones before really cost: over any longer time it takes no more than its share of
 * the processor. Between two frames it waits a random while about the mean: a conveyor with four stations must not show it the same one
 * again and again. Times are monotonic milliseconds, costs are milliseconds of processor time.
 */
export class CpuShare {
  readonly #bucket: TokenBucket;
  readonly #capacityMs: number;
  readonly #random: RandomSource;
  #meanMs = 0;
  #waitForMs = 0;

  constructor({ shareMax, cores, burstSeconds, random, nowMs }: CpuShareOptions) {
    const perSecond = shareMax * cores * 1000;
    this.#capacityMs = perSecond * burstSeconds;
    this.#bucket = new TokenBucket(perSecond, this.#capacityMs, nowMs);
    this.#random = random;
  }

  /** One more frame may be shown. */
  allows(nowMs: number): boolean {
    return this.#bucket.tokens(nowMs) > this.#waitForMs;
  }

  /** There is something left: a run of frames in a row may go on. */
  allowsNext(nowMs: number): boolean {
    return this.#bucket.tokens(nowMs) > 0;
  }

  /** So much is saved up that a run of frames in a row is worth to begin. */
  allowsRun(nowMs: number): boolean {
    return this.#capacityMs > 0 && this.#bucket.tokens(nowMs) >= this.#capacityMs * WAIT_SHARE_MAX;
  }

  spent(costMs: number, nowMs: number): void {
    this.#bucket.take(costMs, nowMs);
    this.#meanMs = this.#meanMs === 0 ? costMs : this.#meanMs + NEWEST_WEIGHT * (costMs - this.#meanMs);
    this.#waitForMs = Math.min(2 * this.#random() * this.#meanMs, this.#capacityMs * WAIT_SHARE_MAX);
  }
}
