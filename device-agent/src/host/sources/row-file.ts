import { type FileHandle, open, stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { FieldloopError } from "@fieldloop/protocol";
import { codeOf, reasonOf } from "../../control/files.js";
import { AGENT_LIMITS } from "../../limits.js";
import type { SpecOf } from "../../source-spec.js";
import { Deliverer } from "./deliver.js";
import { afterFile, type Attempt, type AttemptEnd, KeepTrying, untilAborted } from "./keep-trying.js";
import { RowLedger } from "./row-frames.js";
import { RowStream } from "./row-stream.js";
import type { DropPolicy, Source, SourceContext, SourceFrame } from "./source.js";

type RowFileSpec = SpecOf<"csv" | "ndjson">;

const CHUNK_BYTES = 64 * 1024;

/** Rows of a file, once, over and over, or as another program adds them; or of standard input. */
export class RowFileSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: RowFileSpec;
  readonly #context: SourceContext;
  readonly #action: string;
  readonly #deliverer: Deliverer;
  readonly #ledger: RowLedger;
  readonly #trying: KeepTrying;
  /** The next file is read from its begin, not from its end. */
  #replaced = false;
  #frames = 0;
  #paced: { at: number; frames: number; time: number } | undefined;

  constructor(spec: RowFileSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
    this.#action = `Read ${spec.kind} "${spec.path ?? "-"}"`;
    this.#deliverer = new Deliverer(context, spec.drop);
    this.#ledger = new RowLedger(context, this.#action);
    this.#trying = new KeepTrying(context, (attempt) =>
      spec.path === undefined ? this.#readInput(attempt) : this.#readFile(spec.path, attempt),
    );
  }

  open(): Promise<void> {
    this.#trying.start();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#trying.stop();
  }

  counts(): Readonly<Record<string, number>> {
    const { rows, malformedRows, gaps } = this.#ledger;
    return { rows, malformedRows, gaps, restarts: this.#trying.restarts };
  }

  async #readInput({ signal, healthy }: Attempt): Promise<AttemptEnd> {
    const input: Readable = this.#context.stdin ?? process.stdin;
    const stream = this.#stream();
    const stop = (): void => void input.destroy();
    signal.addEventListener("abort", stop, { once: true });
    try {
      for await (const chunk of input as AsyncIterable<Buffer | string>) {
        healthy();
        await this.#deliverAll(stream.push(typeof chunk === "string" ? Buffer.from(chunk) : chunk), signal);
      }
      await this.#deliverAll(stream.end(), signal);
    } catch (cause) {
      if (signal.aborted) return "ended";
      throw new FieldloopError("source_failed", `${this.#action}: ${reasonOf(cause)}`, { cause });
    } finally {
      signal.removeEventListener("abort", stop);
    }
    return "ended";
  }

  async #readFile(path: string, attempt: Attempt): Promise<AttemptEnd> {
    const handle = await this.#openFile(path);
    try {
      attempt.healthy();
      return await this.#readHandle(handle, path, attempt.signal);
    } finally {
      await handle.close();
    }
  }

  async #readHandle(handle: FileHandle, path: string, signal: AbortSignal): Promise<AttemptEnd> {
    const { follow, loop } = this.#spec;
    const { ino } = await handle.stat();
    const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    const before = this.#frames;
    let stream = this.#stream();
    let at = follow && !this.#replaced ? await this.#seekEnd(handle, stream) : 0;
    while (!signal.aborted) {
      const { bytesRead } = await handle.read(chunk, 0, CHUNK_BYTES, at);
      at += bytesRead;
      if (bytesRead > 0) {
        // The splitter may hold a part of it until its line is whole.
        await this.#deliverAll(stream.push(Buffer.from(chunk.subarray(0, bytesRead))), signal);
      } else if (follow) {
        const now = await stat(path).catch(() => undefined);
        if (now && (now.ino !== ino || now.size < at)) {
          if (now.ino !== ino) {
            // Another file in its place: its rows are new from the first on, and the old one's last is whole.
            await this.#deliverAll(stream.end(), signal);
            this.#replaced = true;
            return "again";
          }
          // Cut short by its writer: from its begin.
          stream = this.#stream();
          at = 0;
        } else await sleep(AGENT_LIMITS.followPollMs, undefined, { signal }).catch(() => undefined);
      } else {
        await this.#deliverAll(stream.end(), signal);
        return signal.aborted ? "ended" : afterFile(loop, this.#frames - before, this.#action);
      }
    }
    return "ended";
  }

  /** Behind the last whole line, over the header: rows that are there already are of no interest. */
  async #seekEnd(handle: FileHandle, stream: RowStream): Promise<number> {
    const size = await endOfLines(handle);
    if (this.#spec.kind !== "csv" || this.#spec.rows.header === "0" || size === 0) return size;
    const head = Buffer.alloc(Math.min(size, AGENT_LIMITS.rowLineBytesMax));
    const { bytesRead } = await handle.read(head, 0, head.length, 0);
    const end = head.subarray(0, bytesRead).indexOf(0x0a);
    if (end < 0) return 0;
    // The first line alone is no row to be predicted on, whether it is a header or not.
    for (const _ of stream.push(head.subarray(0, end + 1))) continue;
    stream.restart();
    return size;
  }

  async #openFile(path: string): Promise<FileHandle> {
    let handle: FileHandle;
    try {
      // Opening a named pipe would wait for its writer.
      if (!(await stat(path)).isFile()) {
        throw new FieldloopError("source_failed", `${this.#action}: no regular file; use - for a pipe`);
      }
      handle = await open(path, "r");
    } catch (cause) {
      if (cause instanceof FieldloopError) throw cause;
      // A file that is made later is new from its first row on.
      if (codeOf(cause) === "ENOENT") this.#replaced = true;
      throw new FieldloopError("source_failed", `${this.#action}: ${codeOf(cause) ?? reasonOf(cause)}`, {
        cause,
      });
    }
    return handle;
  }

  #stream(): RowStream {
    this.#paced = undefined;
    return new RowStream(this.#spec.rows, this.#context, this.#ledger);
  }

  async #deliverAll(frames: Iterable<SourceFrame>, signal: AbortSignal): Promise<void> {
    for (const frame of frames) {
      if (signal.aborted) return;
      if (this.#spec.pace === "realtime") await this.#pace(frame, signal);
      await this.#deliverer.deliver(frame, signal);
      this.#frames++;
    }
  }

  /** Waits until the frame is due: by its own time where rows have one, by the rate of the samples else. */
  async #pace(frame: SourceFrame, signal: AbortSignal): Promise<void> {
    const now = this.#context.clock.monotonic();
    const { rows } = this.#spec;
    this.#paced ??= { at: now, frames: 0, time: frame.time };
    const paced = this.#paced;
    let dueMs: number;
    if (rows.time !== undefined) dueMs = frame.time - paced.time;
    else {
      const shape = this.#context.window?.();
      const hz = rows.hz ?? shape?.sampleRateHz ?? 1;
      const samples = frame.frame.kind === "window" ? (rows.hop ?? rows.length ?? shape?.hop ?? 1) : 1;
      dueMs = (paced.frames * samples * 1000) / hz;
    }
    paced.frames++;
    const waitMs = Math.min(paced.at + dueMs - now, AGENT_LIMITS.rowPaceWaitMsMax);
    if (waitMs > 1) await untilAborted(signal, sleep(waitMs, undefined, { ref: false }));
  }
}

/** Where the last line begins that has no end yet: its writer is in the midst of it, and its tail alone may look like a row. */
async function endOfLines(handle: FileHandle): Promise<number> {
  const { size } = await handle.stat();
  const tail = Buffer.alloc(Math.min(size, AGENT_LIMITS.rowLineBytesMax));
  const { bytesRead } = await handle.read(tail, 0, tail.length, size - tail.length);
  const newline = tail.subarray(0, bytesRead).lastIndexOf(0x0a);
  // Without one in reach it is the first line, or one that is too long to be read anyway.
  return newline < 0 ? (size <= tail.length ? 0 : size) : size - tail.length + newline + 1;
}
