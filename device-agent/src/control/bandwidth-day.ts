import { z } from "zod";
import type { Durable } from "./durable.js";

const DAY_MS = 24 * 3_600_000;
/** What is noted before it is used: a kill in between counts too much, never too little. */
const BLOCK_SHARE = 1 / 64;
const BLOCK_BYTES_MIN = 64 * 1024;
const BLOCK_BYTES_MAX = 4 * 1024 * 1024;

const fileSchema = z.object({ day: z.int().min(0), bytes: z.number().min(0) });
type DayFile = z.output<typeof fileSchema>;

export interface BandwidthDayOptions {
  readonly path: string;
  readonly durable: Durable;
  readonly onError: (error: unknown) => void;
}

/**
 * Bytes used since midnight (UTC), on disk, so that a restart does not give the day's budget back. A clock that goes back keeps what was
 * used: it is given back at the next midnight that is later than all before it, at most one day late.
 */
export class BandwidthDay {
  readonly #options: BandwidthDayOptions;
  #file: DayFile;
  /** As on disk; not less than {@link #file}. */
  #noted: DayFile;
  #blockBytes = BLOCK_BYTES_MAX;
  #writing: Promise<void> | undefined;

  private constructor(options: BandwidthDayOptions, file: DayFile) {
    this.#options = options;
    this.#file = file;
    this.#noted = file;
  }

  static async load(
    options: BandwidthDayOptions,
    now: number,
    onCorrupt: (message: string) => void,
  ): Promise<BandwidthDay> {
    const file = await options.durable.readJson(options.path, fileSchema, onCorrupt);
    const day = new BandwidthDay(options, file ?? { day: dayOf(now), bytes: 0 });
    day.used(now);
    return day;
  }

  /** @param bytesPerDay null: counted all the same, so that a limit set later today knows what was used */
  limit(bytesPerDay: number | null): void {
    this.#blockBytes =
      bytesPerDay === null
        ? BLOCK_BYTES_MAX
        : Math.min(BLOCK_BYTES_MAX, Math.max(BLOCK_BYTES_MIN, Math.round(bytesPerDay * BLOCK_SHARE)));
  }

  used(now: number): number {
    const day = dayOf(now);
    const ahead = this.#file.day - day;
    if (ahead < 0) this.#file = { day, bytes: 0 };
    // It was set by a clock that was wrong by more than a time zone: today counts on.
    else if (ahead > 1) this.#file = { day, bytes: this.#file.bytes };
    return this.#file.bytes;
  }

  add(bytes: number, now: number): void {
    const used = this.used(now);
    this.#file = { ...this.#file, bytes: used + bytes };
    const { day } = this.#file;
    const isCovered = this.#noted.day === day && this.#noted.bytes >= this.#file.bytes + this.#blockBytes / 2;
    if (!isCovered) this.#writing ??= this.#write(this.#file.bytes + this.#blockBytes);
  }

  /** Midnight after `now`. */
  endsAt(now: number): number {
    return (Math.max(dayOf(now), this.#file.day) + 1) * DAY_MS;
  }

  /** Notes what was really used. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#noted.day !== this.#file.day || this.#noted.bytes !== this.#file.bytes) {
      await this.#write(this.#file.bytes);
    }
  }

  async #write(bytes: number): Promise<void> {
    const noted = { day: this.#file.day, bytes };
    const { durable, path, onError } = this.#options;
    try {
      await durable.writeJson("budget", path, noted);
      this.#noted = noted;
    } catch (error) {
      onError(error);
    } finally {
      this.#writing = undefined;
    }
  }
}

function dayOf(now: number): number {
  return Math.floor(now / DAY_MS);
}
