import { isDeepStrictEqual } from "node:util";
import type { SamplingPolicy, Stratum } from "@fieldloop/protocol";
import type { RandomSource } from "../clock.js";
import { TokenBucket } from "../token-bucket.js";

/** Share of the byte budget that belongs to the random stratum: worth must never starve it. */
const RANDOM_BUDGET_SHARE = 0.25;
/** Depth of the buckets, in hours of budget. */
const BURST_HOURS = 1 / 6;
/** When the random budget runs low the share falls, but never to nothing: an estimate needs a chance for every frame. */
const RANDOM_SHARE_FLOOR = 0.02;
/** Weight of a frame is its worth to this power: the best of a window is nearly always among those taken. */
const WORTH_POWER = 8;
/** A window collects this long at least, so that there is something to choose from. */
const WINDOW_MS_MIN = 5_000;
/** Frames kept in memory for one window. */
const WINDOW_TAKE_MAX = 32;
/** Of a frame that is sought, whatever its worth: before all others, and all such frames alike, so that those taken stand for the rest of them. */
const SOUGHT_WEIGHT = 1e9;

export interface Decision {
  readonly stratum: Stratum;
  /** Chance with which a frame like this was taken: an estimate weighs it with the inverse. */
  readonly probability: number;
}

interface Candidate<Item> {
  readonly item: Item;
  /** Chance that the random stratum left it to this one. */
  readonly notRandom: number;
  readonly weight: number;
  readonly priority: number;
}

/**
 * Spends the sample budget in two strata.
 *
 * `random`: each frame by itself with probability `randomShare`, scaled down as its part of the budget empties. The
 * probability is decided before the frame is looked at, so the Horvitz-Thompson estimate (sum of 1/p) is unbiased.
 *
 * `worth`: of each window the frames of highest priority `weight / u`, u uniform: priority sampling (Duffield, Lund, Thorup:
 * "Priority sampling for estimation of arbitrary subset sums", J. ACM 54, 2007). With the threshold t, the highest
 * priority not taken, a frame was taken with probability min(1, weight / t), and sums over 1/p are unbiased here as well.
 */
export class Sampler<Item> {
  #policy!: SamplingPolicy;
  readonly #random: RandomSource;
  readonly #take: (item: Item, decision: Decision) => void;
  #randomBucket!: TokenBucket;
  #worthBucket!: TokenBucket;
  #window: Candidate<Item>[] = [];
  #windowEndsAt: number;
  #windowsSkipped = 0;
  #captures = 0;

  /** `take` makes and sends the sample, and tells {@link spent} its bytes. Times are monotonic milliseconds. */
  constructor(
    policy: SamplingPolicy,
    random: RandomSource,
    nowMs: number,
    take: (item: Item, decision: Decision) => void,
  ) {
    this.#random = random;
    this.#take = take;
    this.#windowEndsAt = 0;
    this.#begin(policy, nowMs);
  }

  /** Windows that were closed unused because the budget was spent. */
  get windowsSkipped(): number {
    return this.#windowsSkipped;
  }

  /** Each desired state says it: one like the one before gives no new budget, and the window goes on. */
  setPolicy(policy: SamplingPolicy, nowMs: number): void {
    if (!isDeepStrictEqual(policy, this.#policy)) this.#begin(policy, nowMs);
  }

  #begin(policy: SamplingPolicy, nowMs: number): void {
    this.#policy = policy;
    const perSecond = policy.bytesPerHour / 3600;
    const capacity = policy.bytesPerHour * BURST_HOURS;
    this.#randomBucket = new TokenBucket(
      perSecond * RANDOM_BUDGET_SHARE,
      capacity * RANDOM_BUDGET_SHARE,
      nowMs,
    );
    this.#worthBucket = new TokenBucket(
      perSecond * (1 - RANDOM_BUDGET_SHARE),
      capacity * (1 - RANDOM_BUDGET_SHARE),
      nowMs,
    );
    this.#window = [];
    this.#windowEndsAt = nowMs + this.#windowMs();
  }

  /** A sample that was taken came to so many bytes; what somebody asked for is nobody's budget. */
  spent(stratum: Stratum, bytes: number, nowMs: number): void {
    if (stratum === "random") this.#randomBucket.take(bytes, nowMs);
    else if (stratum === "worth") this.#worthBucket.take(bytes, nowMs);
  }

  /** The next `count` frames are taken whatever they are: somebody asked for them. */
  capture(count: number): void {
    this.#captures += count;
  }

  /** `isSought`: it is taken before what is only worth a look, within the same budget. */
  offer(item: Item, worth: number, nowMs: number, isSought = false): void {
    this.tick(nowMs);
    if (this.#captures > 0) {
      this.#captures--;
      this.#take(item, { stratum: "campaign", probability: 1 });
      return;
    }
    const share = this.#randomShare(nowMs);
    if (share > 0 && this.#random() < share) {
      this.#take(item, { stratum: "random", probability: share });
      return;
    }
    if ((isSought || worth >= this.#policy.worthMin) && this.#windowTake() > 0) {
      this.#consider(item, isSought ? SOUGHT_WEIGHT : Math.max(worth, 1e-6) ** WORTH_POWER, 1 - share);
    }
  }

  /** Closes the window when its time is over; call it now and then where no frames come. */
  tick(nowMs: number): void {
    if (nowMs < this.#windowEndsAt) return;
    this.#closeWindow(nowMs);
    this.#windowEndsAt = nowMs + this.#windowMs();
  }

  /** Chance of the random stratum for the next frame, whatever it will be. */
  #randomShare(nowMs: number): number {
    const { randomShare, bytesPerHour } = this.#policy;
    if (bytesPerHour === 0) return 0;
    const capacity = bytesPerHour * BURST_HOURS * RANDOM_BUDGET_SHARE;
    const fill = this.#randomBucket.tokens(nowMs) / capacity;
    return randomShare * Math.min(1, Math.max(RANDOM_SHARE_FLOOR, 2 * fill));
  }

  #consider(item: Item, weight: number, notRandom: number): void {
    // 1 - random() is in (0, 1]: never a division by zero.
    const priority = weight / (1 - this.#random());
    this.#window.push({ item, notRandom, weight, priority });
    // One more than is taken: its priority is the threshold.
    const keep = this.#windowTake() + 1;
    if (this.#window.length <= keep) return;
    this.#window.sort((a, b) => b.priority - a.priority);
    this.#window.length = keep;
  }

  #closeWindow(nowMs: number): void {
    const window = this.#window.sort((a, b) => b.priority - a.priority);
    this.#window = [];
    if (window.length === 0) return;
    if (this.#worthBucket.tokens(nowMs) <= 0) {
      this.#windowsSkipped++;
      return;
    }
    const count = this.#windowTake();
    const threshold = window[count]?.priority ?? 0;
    for (const candidate of window.slice(0, count)) {
      const share = threshold === 0 ? 1 : Math.min(1, candidate.weight / threshold);
      const probability = candidate.notRandom * share;
      this.#take(candidate.item, { stratum: "worth", probability });
    }
  }

  /** So long that it takes a whole number of frames, at most {@link WINDOW_TAKE_MAX}. */
  #windowMs(): number {
    const perMinute = this.#policy.worthPerMinute;
    if (perMinute === 0) return 60_000;
    return Math.min(Math.max(WINDOW_MS_MIN, 60_000 / perMinute), (60_000 * WINDOW_TAKE_MAX) / perMinute);
  }

  #windowTake(): number {
    const perMinute = this.#policy.worthPerMinute;
    return perMinute === 0 ? 0 : Math.max(1, Math.floor((perMinute * this.#windowMs()) / 60_000 + 1e-9));
  }
}
