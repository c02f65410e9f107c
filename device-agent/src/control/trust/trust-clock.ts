import { countSchema, FieldloopError, timeSchema, type TrustRole } from "@fieldloop/protocol";
import { z } from "zod";
import type { Clock } from "../../clock.js";
import { AGENT_LIMITS } from "../../limits.js";
import { reasonOf } from "../files.js";
import { replaceFile, type TrustDisk } from "./disk.js";

/** Versions of the metadata that are trusted; 0 where there are none. */
export type TrustedVersions = Readonly<Record<TrustRole, number>>;

const CLOCK_FILE = "clock";
const clockSchema = z.object({
  schema: z.literal(1),
  /** Milliseconds since the epoch by which a whole refresh was last judged good. */
  trusted: timeSchema,
  /** When metadata were found expired since, and which. */
  expired: z.object({ at: timeSchema, root: countSchema, timestamp: countSchema }).nullable().default(null),
});
type ClockFile = z.output<typeof clockSchema>;

/**
 * By which time trust metadata are judged. The device's clock may jump: back (a dead battery, an attacker who wants expired metadata
 * accepted) or far forward (then everything seems expired). So the time at which a refresh succeeded is kept, and no later refresh is
 * judged by an earlier one. It cannot be driven ahead without end: a refresh succeeds only while its timestamp metadata have not
 * expired, so a clock that was ahead once is forgiven as soon as the next timestamp is published. And metadata that were found expired
 * once do not come to life again by a clock that is set back: only with a newer timestamp, or a newer root, do they count.
 */
export class TrustClock {
  readonly #directory: string;
  readonly #disk: TrustDisk;
  readonly #clock: Clock;
  #file: ClockFile = { schema: 1, trusted: 0, expired: null };

  constructor(directory: string, disk: TrustDisk, clock: Clock) {
    this.#directory = directory;
    this.#disk = disk;
    this.#clock = clock;
  }

  /** A file that is harmed is as none: it is written again by the next success. */
  async load(): Promise<void> {
    const bytes = await this.#disk.read(`${this.#directory}/${CLOCK_FILE}`);
    if (!bytes) return;
    const parsed = clockSchema.safeParse(safeJson(bytes));
    if (parsed.success) this.#file = parsed.data;
  }

  /** The time to judge by, milliseconds since the epoch: now, or the last trusted time where the clock stands before it. */
  reference(): number {
    return Math.max(this.#clock.now(), this.#file.trusted);
  }

  /** By how many milliseconds the clock stands before the last trusted time; 0 within the tolerance. */
  get behindMs(): number {
    const behind = this.#file.trusted - this.#clock.now();
    return behind > AGENT_LIMITS.trustClockToleranceMs ? behind : 0;
  }

  /** Milliseconds since the epoch; 0 before the first success. */
  get trusted(): number {
    return this.#file.trusted;
  }

  /** @throws FieldloopError `trust_clock_back` where metadata seem good only because the clock was set back */
  admit(reference: number, versions: TrustedVersions): void {
    const { expired } = this.#file;
    if (!expired || reference >= expired.at) return;
    if (versions.timestamp > expired.timestamp || versions.root > expired.root) return;
    throw new FieldloopError(
      "trust_clock_back",
      `Refresh trust metadata: the clock says ${iso(reference)}, but at ${iso(expired.at)} the same metadata had expired already`,
    );
  }

  /** A whole refresh was good by `reference`. */
  async succeeded(reference: number): Promise<void> {
    const ahead = reference - this.#file.trusted;
    if (ahead < AGENT_LIMITS.trustClockStepMs && this.#file.expired === null && this.#file.trusted > 0)
      return;
    await this.#write({ schema: 1, trusted: Math.max(reference, this.#file.trusted), expired: null });
  }

  /** Metadata of these versions were expired by `reference`. */
  async expired(reference: number, { root, timestamp }: TrustedVersions): Promise<void> {
    const before = this.#file.expired;
    const known = before?.root === root && before.timestamp === timestamp;
    // The earliest such time says the same, and a clock that runs ahead must not move it.
    if (known && before.at <= reference) return;
    await this.#write({ ...this.#file, expired: { at: reference, root, timestamp } });
  }

  async #write(file: ClockFile): Promise<void> {
    try {
      await replaceFile(this.#disk, this.#directory, CLOCK_FILE, Buffer.from(JSON.stringify(file)));
    } catch (cause) {
      throw new FieldloopError("storage_failed", `Keep trusted time: ${reasonOf(cause)}`, { cause });
    }
    this.#file = file;
  }
}

function iso(time: number): string {
  return new Date(time).toISOString();
}

function safeJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}
