import { join } from "node:path";
import { type BandwidthLimits, type Stream, UNLIMITED } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import { TokenBucket } from "../token-bucket.js";
import { BandwidthDay } from "./bandwidth-day.js";
import { sleep } from "./deployment-rules.js";
import type { Durable } from "./durable.js";

/** What travels: the streams of telemetry, and the files of packages. */
export type Traffic = Stream | "download";

/** Of what travels while both sides want to, the share of telemetry against one part for downloads. */
const TELEMETRY_SHARE: Readonly<Record<Stream, number>> = { event: 7, profile: 7, predictions: 3, sample: 1 };

/**
 * Up to which part of the day's budget each may use it: what is worth more finds some left. Events (a deployment that failed, a crash) are
 * never held back, they are counted only.
 */
const DAY_SHARE: Readonly<Record<Traffic, number>> = {
  event: Number.POSITIVE_INFINITY,
  profile: 1,
  predictions: 0.95,
  download: 0.9,
  sample: 0.9,
};

export interface BandwidthOptions {
  readonly clock: Clock;
  /** Of everything together. */
  readonly bytesPerSecond: number;
  readonly day: BandwidthDay;
}

type Side = "telemetry" | "download";

/** The budget of the device whose state folder this is, with what was used of it today. */
export async function openBandwidth(options: {
  readonly directory: string;
  readonly durable: Durable;
  readonly clock: Clock;
  readonly bytesPerSecond: number;
  readonly log: Logger;
  readonly onCorrupt: (message: string) => void;
}): Promise<Bandwidth> {
  const { directory, durable, clock, bytesPerSecond, log, onCorrupt } = options;
  const onError = (error: unknown): void =>
    log.warn({ error }, "what was used of the day's budget was not noted");
  const path = join(directory, "bandwidth.json");
  const day = await BandwidthDay.load({ path, durable, onError }, clock.now(), onCorrupt);
  return new Bandwidth({ clock, bytesPerSecond, day });
}

/**
 * The one budget of a device's link, in bytes a second and a day, for telemetry, samples and downloads alike. Within telemetry the sender
 * takes the most important first. Where telemetry and a download both want the link they take turns: a package gets a part of it whatever
 * waits (the fix of a bad version must arrive), and more of it beside samples than beside events.
 */
export class Bandwidth {
  readonly #clock: Clock;
  readonly #day: BandwidthDay;
  readonly #link: TokenBucket;
  #limits: BandwidthLimits = UNLIMITED;
  #downloads: TokenBucket | undefined;
  /** Who waits for the link right now, and what has travelled for each, by its share. */
  #telemetryWaits: Stream | undefined;
  #downloadsWaiting = 0;
  readonly #served: Record<Side, number> = { telemetry: 0, download: 0 };

  constructor(options: BandwidthOptions) {
    this.#clock = options.clock;
    this.#day = options.day;
    const rate = options.bytesPerSecond;
    this.#link = new TokenBucket(rate, rate * AGENT_LIMITS.uplinkBurstSeconds, options.clock.monotonic());
  }

  get limits(): BandwidthLimits {
    return this.#limits;
  }

  /** From now on, for what is on its way as well. */
  setLimits(limits: BandwidthLimits): void {
    const rate = limits.downloadBytesPerSecond;
    if (rate !== this.#limits.downloadBytesPerSecond) {
      this.#downloads = rate === null ? undefined : new TokenBucket(rate, rate, this.#clock.monotonic());
    }
    this.#limits = limits;
    this.#day.limit(limits.bytesPerDay);
  }

  /**
   * Milliseconds until something of this kind may travel; 0: now. The sender says with it what it would send next, and with
   * {@link rest} that there is nothing.
   */
  waitMs(kind: Traffic): number {
    const now = this.#clock.monotonic();
    const side: Side = kind === "download" ? "download" : "telemetry";
    if (side === "telemetry") this.#telemetryWaits = kind as Stream;
    const dayMs = this.#dayWaitMs(kind);
    if (dayMs > 0) {
      // What may not travel today keeps nobody else from it.
      this.rest(side);
      return dayMs;
    }
    const ownMs = side === "download" ? (this.#downloads?.waitMs(now) ?? 0) : 0;
    if (ownMs > 0) return ownMs;
    const linkMs = this.#link.waitMs(now);
    if (linkMs > 0) return linkMs;
    return this.#isTurnOf(side) ? 0 : AGENT_LIMITS.bandwidthTurnMs;
  }

  /** It travels. */
  take(kind: Traffic, bytes: number): void {
    const now = this.#clock.monotonic();
    this.#link.take(bytes, now);
    this.#day.add(bytes, this.#clock.now());
    if (kind === "download") {
      this.#downloads?.take(bytes, now);
      this.#served.download += bytes;
    } else {
      this.#served.telemetry += bytes / TELEMETRY_SHARE[kind];
      this.#telemetryWaits = undefined;
    }
    // Nobody saves up turns that were not wanted.
    if (this.#downloadsWaiting === 0 && kind !== "download") this.#catchUp("download");
    if (this.#telemetryWaits === undefined && kind === "download") this.#catchUp("telemetry");
  }

  /** That side wants nothing at the moment. */
  rest(side: Side): void {
    if (side === "telemetry") this.#telemetryWaits = undefined;
  }

  /** Until a part of a download may be taken. Ends early when the signal does. */
  async downloadReady(signal: AbortSignal): Promise<void> {
    this.#downloadsWaiting++;
    try {
      for (;;) {
        const ms = this.waitMs("download");
        if (ms <= 0 || signal.aborted) return;
        await sleep(Math.min(ms, AGENT_LIMITS.bandwidthPollMs), signal);
      }
    } finally {
      this.#downloadsWaiting--;
    }
  }

  /** When downloads may go on, where the day's budget keeps them from it (milliseconds since the epoch); undefined where it does not. */
  get downloadsResumeAt(): number | undefined {
    const ms = this.#dayWaitMs("download");
    return ms > 0 ? this.#clock.now() + ms : undefined;
  }

  async close(): Promise<void> {
    await this.#day.close();
  }

  #dayWaitMs(kind: Traffic): number {
    const { bytesPerDay } = this.#limits;
    if (bytesPerDay === null) return 0;
    const now = this.#clock.now();
    return this.#day.used(now) < bytesPerDay * DAY_SHARE[kind] ? 0 : this.#day.endsAt(now) - now;
  }

  #isTurnOf(side: Side): boolean {
    const { telemetry, download } = this.#served;
    if (side === "telemetry") return this.#downloadsWaiting === 0 || telemetry <= download;
    return this.#telemetryWaits === undefined || download < telemetry;
  }

  #catchUp(side: Side): void {
    const other: Side = side === "download" ? "telemetry" : "download";
    this.#served[side] = Math.max(this.#served[side], this.#served[other]);
  }
}
