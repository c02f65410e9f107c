import { type FileHandle, open, readFile, readdir, rename, truncate } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import { ensureDirectory, reasonOf, syncDirectory, unlinkIfThere } from "../files.js";
import { decodeRecord, encodeRecord, RECORD_HEADER_BYTES, scanRecords, type SpoolRecord } from "./record.js";

interface Segment {
  readonly number: number;
  readonly path: string;
  bytes: number;
  /** Records that are neither acknowledged nor evicted. */
  live: number;
  /** Open while it is the one that is written, or read from. */
  handle: FileHandle | undefined;
}

/** What memory knows of a record; its payload is read from disk when it is sent. */
export interface SpoolEntry {
  readonly boot: number;
  readonly seq: number;
  readonly group: number;
  readonly protected: boolean;
  readonly worth: number;
  /** Payload and header. */
  readonly bytes: number;
  /** Set by the sender: an eviction leaves it alone, for the record after it names it as its predecessor. */
  inFlight: boolean;
  /** Undefined until it is on disk. */
  place: { segment: Segment; offset: number } | undefined;
}

interface Pending {
  readonly entry: SpoolEntry;
  readonly bytes: Buffer;
}

const SEGMENT_NAME = /^(\d{10})\.seg$/;

/**
 * One stream of the spool: append-only segment files, one writer. Work on files runs one after the other through a chain
 * of promises; `entries` is always in the order of (boot, seq).
 */
export class StreamLog {
  readonly directory: string;
  /** Bytes behind the last good checksum that opening cut off, over all segments. */
  cutBytes = 0;
  #entries: SpoolEntry[] = [];
  #segments: Segment[] = [];
  #lastNumber = 0;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #chain: Promise<unknown> = Promise.resolve();

  constructor(directory: string) {
    this.directory = directory;
  }

  get entries(): readonly SpoolEntry[] {
    return this.#entries;
  }
  get pendingBytes(): number {
    return this.#pendingBytes;
  }
  /** What the files take on disk. */
  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  /** Reads every segment, cuts torn tails, and leaves out what was acknowledged up to (`boot`, `seq`). */
  async open(acknowledged: { boot: number; seq: number } | undefined): Promise<void> {
    await ensureDirectory(this.directory);
    const names = (await readdir(this.directory)).sort();
    for (const name of names) {
      const match = SEGMENT_NAME.exec(name);
      if (match) await this.#openSegment(Number(match[1]), acknowledged);
      else if (name.endsWith(".tmp")) await unlinkIfThere(join(this.directory, name));
    }
    await this.#dropEmpty();
  }

  async #openSegment(number: number, acknowledged: { boot: number; seq: number } | undefined): Promise<void> {
    const path = this.#path(number);
    this.#lastNumber = number;
    const bytes = await readFile(path);
    const { records, goodBytes } = scanRecords(bytes);
    if (goodBytes < bytes.length) {
      this.cutBytes += bytes.length - goodBytes;
      await truncate(path, goodBytes);
    }
    const handle = await open(path, "r+");
    try {
      // What a killed process wrote may be in the page cache only; nothing is sent before it is on disk.
      await handle.sync();
    } finally {
      await handle.close();
    }
    const segment: Segment = { number, path, bytes: goodBytes, live: 0, handle: undefined };
    this.#segments.push(segment);
    for (const { record, offset } of records) {
      const last = this.#entries.at(-1);
      // A write that failed half way was repeated in the next segment: the second copy is no news.
      if (last && compare(record, last) <= 0) continue;
      if (acknowledged && compare(record, acknowledged) <= 0) continue;
      this.#entries.push(toEntry(record, { segment, offset }));
      segment.live++;
    }
  }

  append(record: SpoolRecord): SpoolEntry {
    const bytes = encodeRecord(record);
    const entry = toEntry(record, undefined);
    this.#entries.push(entry);
    this.#pending.push({ entry, bytes });
    this.#pendingBytes += bytes.length;
    return entry;
  }

  /** Writes and syncs all that was appended before the call. @throws FieldloopError `storage_failed`; the records stay pending */
  flush(): Promise<void> {
    return this.#run(async () => {
      while (this.#pending.length > 0) await this.#writeSome();
    });
  }

  async #writeSome(): Promise<void> {
    const segment = await this.#writableSegment();
    const batch: Pending[] = [];
    let bytes = 0;
    for (const item of this.#pending) {
      if (bytes > 0 && segment.bytes + bytes + item.bytes.length > AGENT_LIMITS.spoolSegmentBytesMax) break;
      batch.push(item);
      bytes += item.bytes.length;
    }
    try {
      await writeAll(segment.handle!, Buffer.concat(batch.map((item) => item.bytes)), segment.bytes);
      await segment.handle!.datasync();
    } catch (cause) {
      await this.#abandon(segment);
      throw new FieldloopError("storage_failed", `Write spool segment: ${reasonOf(cause)}`, { cause });
    }
    const written = new Set(batch);
    this.#pending = this.#pending.filter((item) => !written.has(item));
    for (const item of batch) {
      item.entry.place = { segment, offset: segment.bytes };
      segment.bytes += item.bytes.length;
      segment.live++;
      this.#pendingBytes -= item.bytes.length;
    }
  }

  /**
   * After a failed write or fsync the kernel may have marked the pages clean: they are never synced again. The segment
   * is closed as it was before, and the records, still in memory, go into a fresh one.
   */
  async #abandon(segment: Segment): Promise<void> {
    const handle = segment.handle;
    segment.handle = undefined;
    try {
      await handle?.truncate(segment.bytes);
      await handle?.close();
    } catch {
      // The disk refuses even this; opening cuts or skips what stays behind.
    }
  }

  async #writableSegment(): Promise<Segment> {
    const last = this.#segments.at(-1);
    if (last?.handle !== undefined && last.bytes < AGENT_LIMITS.spoolSegmentBytesMax) return last;
    await last?.handle?.close();
    if (last) last.handle = undefined;
    // Numbers only grow: a name never comes back with other content while an entry points at it.
    const number = ++this.#lastNumber;
    const path = this.#path(number);
    try {
      const handle = await open(path, "w+", 0o600);
      const segment: Segment = { number, path, bytes: 0, live: 0, handle };
      this.#segments.push(segment);
      await syncDirectory(this.directory);
      return segment;
    } catch (cause) {
      throw new FieldloopError("storage_failed", `Open spool segment "${path}": ${reasonOf(cause)}`, {
        cause,
      });
    }
  }

  /** The payload as it was appended. @throws FieldloopError `spool_corrupt` where the disk changed it meanwhile */
  read(entry: SpoolEntry): Promise<Uint8Array> {
    return this.#run(async () => {
      const place = entry.place;
      if (!place) throw new FieldloopError("internal", "Read spool: the record is not on disk yet");
      const own = place.segment.handle;
      const handle = own ?? (await open(place.segment.path, "r"));
      try {
        const bytes = Buffer.alloc(entry.bytes);
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, place.offset);
        const record = bytesRead === bytes.length ? decodeRecord(bytes, 0) : undefined;
        if (!record || compare(record, entry) !== 0) {
          throw new FieldloopError(
            "spool_corrupt",
            `Read spool: record ${entry.boot}/${entry.seq} failed its checksum`,
          );
        }
        return record.payload;
      } finally {
        if (!own) await handle.close();
      }
    });
  }

  /** First entry that is on disk and after (`boot`, `seq`); from the head where undefined. */
  nextAfter(position: { boot: number; seq: number } | undefined): SpoolEntry | undefined {
    const entry = this.#entries[position === undefined ? 0 : this.#firstAfter(position)];
    return entry?.place === undefined ? undefined : entry;
  }

  /** Sequence number of the entry before, 0 where there is none of the same boot. */
  previousSeq(entry: SpoolEntry): number {
    const index = this.#firstAfter({ boot: entry.boot, seq: entry.seq - 1 });
    const before = this.#entries[index - 1];
    return before !== undefined && before.boot === entry.boot ? before.seq : 0;
  }

  /** Forgets everything up to (`boot`, `seq`); returns how many records that were. */
  acknowledge(boot: number, seq: number): number {
    const count = this.#firstAfter({ boot, seq });
    if (count === 0) return 0;
    this.#forget(new Set(this.#entries.slice(0, count)));
    this.#entries.splice(0, count);
    void this.#run(() => this.#dropEmpty()).catch(() => undefined);
    return count;
  }

  /**
   * Forgets records, on disk too: segments are rewritten without the victims, or unlinked.
   * @throws FieldloopError `storage_failed` where a segment could not be rewritten; the victims are forgotten all the same
   */
  evict(victims: ReadonlySet<SpoolEntry>): Promise<void> {
    if (victims.size === 0) return Promise.resolve();
    return this.#run(async () => {
      const touched = new Set<Segment>();
      for (const entry of victims) if (entry.place) touched.add(entry.place.segment);
      this.#entries = this.#entries.filter((entry) => !victims.has(entry));
      this.#forget(victims);
      await this.#dropEmpty();
      try {
        for (const segment of touched) if (segment.live > 0) await this.#rewrite(segment);
      } catch (cause) {
        throw new FieldloopError("storage_failed", `Rewrite spool segment: ${reasonOf(cause)}`, { cause });
      }
    });
  }

  #forget(entries: ReadonlySet<SpoolEntry>): void {
    for (const entry of entries) {
      if (entry.place) entry.place.segment.live--;
      else this.#unpend(entry);
    }
  }

  #unpend(entry: SpoolEntry): void {
    const index = this.#pending.findIndex((item) => item.entry === entry);
    if (index < 0) return;
    this.#pendingBytes -= this.#pending[index]!.bytes.length;
    this.#pending.splice(index, 1);
  }

  async #rewrite(segment: Segment): Promise<void> {
    const keep = this.#entries.filter((entry) => entry.place?.segment === segment);
    const old = await readFile(segment.path);
    const parts = keep.map((entry) => old.subarray(entry.place!.offset, entry.place!.offset + entry.bytes));
    const temporary = `${segment.path}.tmp`;
    const handle = await open(temporary, "w", 0o600);
    try {
      await handle.writeFile(Buffer.concat(parts));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await segment.handle?.close();
    segment.handle = undefined;
    await rename(temporary, segment.path);
    await syncDirectory(this.directory);
    let offset = 0;
    for (const entry of keep) {
      entry.place = { segment, offset };
      offset += entry.bytes;
    }
    segment.bytes = offset;
  }

  /** Unlinks segments without a live record; the one being written only once it is worth it. */
  async #dropEmpty(): Promise<void> {
    const kept: Segment[] = [];
    for (const segment of this.#segments) {
      const isWritten = segment.handle !== undefined;
      if (segment.live > 0 || (isWritten && segment.bytes < AGENT_LIMITS.spoolSegmentBytesMax / 4)) {
        kept.push(segment);
        continue;
      }
      await segment.handle?.close();
      segment.handle = undefined;
      await unlinkIfThere(segment.path);
    }
    this.#segments = kept;
  }

  async close(): Promise<void> {
    await this.#run(async () => {
      for (const segment of this.#segments) {
        await segment.handle?.close();
        segment.handle = undefined;
      }
    });
  }

  #run<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#chain.then(work, work);
    this.#chain = result.catch(() => undefined);
    return result;
  }

  /** Index of the first entry greater than `position` (binary search). */
  #firstAfter(position: { boot: number; seq: number }): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.#entries[middle]!, position) <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #path(number: number): string {
    return join(this.directory, `${String(number).padStart(10, "0")}.seg`);
  }
}

function toEntry(record: SpoolRecord, place: SpoolEntry["place"]): SpoolEntry {
  const { boot, seq, group, worth } = record;
  const bytes = RECORD_HEADER_BYTES + record.payload.length;
  return { boot, seq, group, protected: record.protected, worth, bytes, inFlight: false, place };
}

function compare(a: { boot: number; seq: number }, b: { boot: number; seq: number }): number {
  return a.boot - b.boot || a.seq - b.seq;
}

async function writeAll(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
