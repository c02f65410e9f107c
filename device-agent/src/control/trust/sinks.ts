import { type FileHandle, open, stat } from "node:fs/promises";
import { FieldloopError } from "@fieldloop/protocol";
import { reasonOf } from "../files.js";
import type { Sink } from "./transfer.js";

/** Keeps what arrives in memory: metadata, whose size is bounded. */
export class MemorySink implements Sink {
  #chunks: Uint8Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }
  append(chunk: Uint8Array): Promise<void> {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    return Promise.resolve();
  }
  clear(): Promise<void> {
    this.#chunks = [];
    this.#length = 0;
    return Promise.resolve();
  }
  bytes(): Buffer {
    return Buffer.concat(this.#chunks, this.#length);
  }
}

/** Appends to a file that an earlier try may have begun. */
export class FileSink implements Sink {
  readonly #handle: FileHandle;
  #length: number;

  private constructor(handle: FileHandle, length: number) {
    this.#handle = handle;
    this.#length = length;
  }

  /** @throws FieldloopError `storage_failed` */
  static async open(path: string): Promise<FileSink> {
    try {
      const length = await stat(path).then(
        (info) => info.size,
        () => 0,
      );
      return new FileSink(await open(path, "a", 0o600), length);
    } catch (cause) {
      throw failed(cause);
    }
  }

  get length(): number {
    return this.#length;
  }
  async append(chunk: Uint8Array): Promise<void> {
    await this.#handle.writeFile(chunk).catch((cause: unknown) => {
      throw failed(cause);
    });
    this.#length += chunk.length;
  }
  async clear(): Promise<void> {
    await this.#handle.truncate(0).catch((cause: unknown) => {
      throw failed(cause);
    });
    this.#length = 0;
  }
  /** What was appended is on the medium. */
  async sync(): Promise<void> {
    await this.#handle.sync();
  }
  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function failed(cause: unknown): FieldloopError {
  const full = cause instanceof Error && "code" in cause && cause.code === "ENOSPC";
  return new FieldloopError(full ? "storage_full" : "storage_failed", `Write target: ${reasonOf(cause)}`, {
    cause,
  });
}
