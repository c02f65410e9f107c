import { join } from "node:path";
import {
  decodeCbor,
  encodeCbor,
  FieldloopError,
  STREAMS,
  toFieldloopError,
  type Ack,
  type CborValue,
  type Stream,
} from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS } from "../../limits.js";
import { ensureDirectory, readJsonFile, writeJsonFile } from "../files.js";
import { chooseVictims } from "./eviction.js";
import { type SpoolEntry, StreamLog } from "./stream-log.js";

export interface SpoolOptions {
  readonly directory: string;
  /** Boot of this start: what is appended now belongs to it. */
  readonly boot: number;
  readonly bytesMax: number;
  /** Something new can be sent. */
  readonly onDurable: () => void;
  readonly onEvicted: (stream: Stream, records: number, bytes: number) => void;
  /** The disk refuses writes (an error), or takes them again (undefined). */
  readonly onStorage: (error: FieldloopError | undefined) => void;
}

export interface AppendOptions {
  /** 0..1; the lowest go first when space runs out. */
  readonly worth: number;
  readonly protected: boolean;
}

const cursorSchema = z.partialRecord(
  z.enum(STREAMS),
  z.object({ boot: z.int().min(1), seq: z.int().min(1) }),
);
type Cursors = z.output<typeof cursorSchema>;

/**
 * Store-and-forward: what the device has to say, on disk, until ingest says that it is durable there. A record may be sent
 * only after its fsync; it is deleted only by {@link acknowledge} or, when the budget is used up, by eviction.
 *
 * A payload is the message as it travels, with `prev` 0: the predecessor is known only when it is sent ({@link message}).
 */
export class Spool {
  readonly #options: SpoolOptions;
  readonly #logs: Readonly<Record<Stream, StreamLog>>;
  readonly #nextSeq: Record<Stream, number> = { event: 1, profile: 1, predictions: 1, sample: 1 };
  #cursors: Cursors = {};
  #cursorsDirty = false;
  #flushTimer: NodeJS.Timeout | undefined;
  #cursorTimer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #failed = false;
  #closed = false;
  #recordsEvicted = 0;
  #acknowledged: Record<Stream, number> = { event: 0, profile: 0, predictions: 0, sample: 0 };

  private constructor(options: SpoolOptions) {
    this.#options = options;
    const log = (stream: Stream): StreamLog => new StreamLog(join(options.directory, stream));
    this.#logs = {
      event: log("event"),
      profile: log("profile"),
      predictions: log("predictions"),
      sample: log("sample"),
    };
  }

  /** Opens or creates; torn tails are cut and counted in {@link cutBytes}. */
  static async open(options: SpoolOptions): Promise<Spool> {
    const spool = new Spool(options);
    await ensureDirectory(options.directory);
    // Without it acknowledged records of half-used segments are sent once more, and dropped as duplicates.
    spool.#cursors = (await readJsonFile(spool.#cursorPath(), cursorSchema, () => undefined)) ?? {};
    for (const stream of STREAMS) await spool.#logs[stream].open(spool.#cursors[stream]);
    spool.#cursorTimer = setInterval(() => void spool.#saveCursors(), AGENT_LIMITS.spoolCursorIntervalMs);
    spool.#cursorTimer.unref();
    return spool;
  }

  get cutBytes(): number {
    return STREAMS.reduce((sum, stream) => sum + this.#logs[stream].cutBytes, 0);
  }
  get records(): number {
    return STREAMS.reduce((sum, stream) => sum + this.#logs[stream].entries.length, 0);
  }
  get bytes(): number {
    return STREAMS.reduce(
      (sum, stream) => sum + this.#logs[stream].bytes + this.#logs[stream].pendingBytes,
      0,
    );
  }
  get bytesMax(): number {
    return this.#options.bytesMax;
  }
  get recordsEvicted(): number {
    return this.#recordsEvicted;
  }
  /** Records waiting, and acknowledged since the start, by stream. */
  waiting(stream: Stream): number {
    return this.#logs[stream].entries.length;
  }
  acknowledged(stream: Stream): number {
    return this.#acknowledged[stream];
  }

  /**
   * Appends the message that `build` makes for its sequence number. It is durable after the next flush, at most
   * `spoolFlushIntervalMs` later. Returns false where memory for unwritten records is used up: counted as evicted.
   */
  append(stream: Stream, options: AppendOptions, build: (seq: number) => Uint8Array): boolean {
    return this.appendGroup(stream, options, 1, build);
  }

  /** The same for messages that only make sense together: they follow each other and are evicted together. */
  appendGroup(
    stream: Stream,
    options: AppendOptions,
    count: number,
    build: (seq: number, index: number) => Uint8Array,
  ): boolean {
    if (this.#closed) throw new FieldloopError("internal", "Append to spool: it is closed");
    if (!options.protected && this.#pendingBytes() > AGENT_LIMITS.spoolPendingBytesMax) {
      this.#recordsEvicted += count;
      return false;
    }
    const group = this.#nextSeq[stream];
    const payloads = Array.from({ length: count }, (_, index) => build(group + index, index));
    this.#nextSeq[stream] += count;
    payloads.forEach((payload, index) =>
      this.#logs[stream].append({ ...options, boot: this.#options.boot, seq: group + index, group, payload }),
    );
    this.#flushTimer ??= setTimeout(() => void this.#flushLater(), AGENT_LIMITS.spoolFlushIntervalMs);
    return true;
  }

  /** Resolves when everything appended before the call is on disk. @throws FieldloopError `storage_failed` */
  async flush(): Promise<void> {
    while (this.#flushing) await this.#flushing.catch(() => undefined);
    this.#flushing = this.#flushNow();
    try {
      await this.#flushing;
    } finally {
      this.#flushing = undefined;
    }
  }

  async #flushLater(): Promise<void> {
    this.#flushTimer = undefined;
    try {
      await this.flush();
    } catch {
      // Reported by #flushNow; the records wait in memory for the next try.
      if (!this.#closed) {
        this.#flushTimer ??= setTimeout(() => void this.#flushLater(), AGENT_LIMITS.spoolRetryMs);
        this.#flushTimer.unref();
      }
    }
  }

  async #flushNow(): Promise<void> {
    try {
      for (const stream of STREAMS) await this.#logs[stream].flush();
      if (this.#failed) {
        this.#failed = false;
        this.#options.onStorage(undefined);
      }
    } catch (error) {
      const coded = toFieldloopError(error);
      // A full disk is met like a used-up budget: what is worth least makes room.
      if (!this.#failed) await this.#evict(Math.floor(this.bytes * (1 - AGENT_LIMITS.spoolEvictionTarget)));
      this.#failed = true;
      this.#options.onStorage(coded);
      throw coded;
    }
    if (this.bytes > this.#options.bytesMax) {
      await this.#evict(this.bytes - this.#options.bytesMax * AGENT_LIMITS.spoolEvictionTarget);
    }
    this.#options.onDurable();
  }

  async #evict(bytesWanted: number): Promise<void> {
    const victims = chooseVictims(
      {
        event: this.#logs.event.entries,
        profile: this.#logs.profile.entries,
        predictions: this.#logs.predictions.entries,
        sample: this.#logs.sample.entries,
      },
      bytesWanted,
    );
    for (const stream of STREAMS) {
      const set = victims[stream];
      if (set.size === 0) continue;
      let bytes = 0;
      for (const entry of set) bytes += entry.bytes;
      this.#recordsEvicted += set.size;
      try {
        await this.#logs[stream].evict(set);
      } catch (error) {
        this.#options.onStorage(toFieldloopError(error));
      }
      this.#options.onEvicted(stream, set.size, bytes);
    }
  }

  /** The first record after `position` that may be sent; from the head where undefined. */
  next(stream: Stream, position: SpoolEntry | undefined): SpoolEntry | undefined {
    return this.#logs[stream].nextAfter(position);
  }

  head(stream: Stream): SpoolEntry | undefined {
    return this.#logs[stream].entries[0];
  }

  /** The message to send now: the stored one with its predecessor of this moment. @throws FieldloopError `spool_corrupt` */
  async message(stream: Stream, entry: SpoolEntry): Promise<Uint8Array> {
    const payload = await this.#logs[stream].read(entry);
    return withPrevious(payload, this.#logs[stream].previousSeq(entry));
  }

  /** Drops a record that the disk harmed, so that the stream goes on without it. */
  async discard(stream: Stream, entry: SpoolEntry): Promise<void> {
    this.#recordsEvicted++;
    await this.#logs[stream].evict(new Set([entry]));
    this.#options.onEvicted(stream, 1, entry.bytes);
  }

  /** `down/ack`: everything up to (boot, seq) of the stream is durable at the server. Returns how many records that freed. */
  acknowledge(ack: Ack): number {
    const count = this.#logs[ack.stream].acknowledge(ack.boot, ack.seq);
    if (count > 0) {
      this.#acknowledged[ack.stream] += count;
      this.#cursors[ack.stream] = { boot: ack.boot, seq: ack.seq };
      this.#cursorsDirty = true;
    }
    return count;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#flushTimer);
    clearInterval(this.#cursorTimer);
    try {
      await this.flush();
    } finally {
      await this.#saveCursors();
      for (const stream of STREAMS) await this.#logs[stream].close();
    }
  }

  async #saveCursors(): Promise<void> {
    if (!this.#cursorsDirty) return;
    this.#cursorsDirty = false;
    try {
      await writeJsonFile(this.#cursorPath(), this.#cursors);
    } catch {
      this.#cursorsDirty = true;
    }
  }

  #cursorPath(): string {
    return join(this.#options.directory, "acknowledged.json");
  }

  #pendingBytes(): number {
    return STREAMS.reduce((sum, stream) => sum + this.#logs[stream].pendingBytes, 0);
  }
}

/** Sets `prev` in a message: element 2 of the array form (predictions), a field of the map form (all others). */
export function withPrevious(payload: Uint8Array, prev: number): Uint8Array {
  const message = decodeCbor(payload);
  if (Array.isArray(message)) {
    return encodeCbor((message as readonly CborValue[]).map((item, index) => (index === 2 ? prev : item)));
  }
  return encodeCbor({ ...(message as { readonly [key: string]: CborValue }), prev });
}
