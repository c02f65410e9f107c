import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, sha256Schema } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";
import type { BlobContent, BlobInfo, BlobStore } from "./blob.js";

/** Blobs as files `{folder}/{first two digits}/{sha256}`, each written aside, synced and renamed. */
export class FileBlobStore implements BlobStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Makes the folders and removes what an interrupted `put` left. */
  async open(): Promise<void> {
    await rm(this.#incoming, { recursive: true, force: true });
    await mkdir(this.#incoming, { recursive: true, mode: 0o700 });
  }

  async put(content: BlobContent, options: { sha256?: string; bytesMax?: number } = {}): Promise<BlobInfo> {
    const temporary = join(this.#incoming, randomUUID());
    const file = await open(temporary, "wx", 0o600);
    try {
      const info = await this.#write(file, content, options);
      const path = this.#path(info.sha256);
      if (await this.has(info.sha256)) return info;
      await mkdir(join(path, ".."), { recursive: true, mode: 0o700 });
      await rename(temporary, path);
      await syncFolder(join(path, ".."));
      return info;
    } finally {
      await file.close().catch(() => undefined);
      await rm(temporary, { force: true });
    }
  }

  async stat(sha256: string): Promise<BlobInfo | undefined> {
    try {
      return { sha256, bytes: (await stat(this.#path(sha256))).size };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async has(sha256: string): Promise<boolean> {
    return (await this.stat(sha256)) !== undefined;
  }

  async get(sha256: string): Promise<Uint8Array> {
    let bytes: Uint8Array;
    try {
      bytes = await readFile(this.#path(sha256));
    } catch (error) {
      throw isMissing(error) ? unknownBlob(sha256) : error;
    }
    const actual = createHash("sha256").update(bytes).digest("hex");
    if (actual !== sha256) {
      throw new FieldloopError("storage_failed", `Read blob: "${sha256}" now has the hash "${actual}"`);
    }
    return bytes;
  }

  async stream(
    sha256: string,
    range: { from?: number; to?: number } = {},
  ): Promise<AsyncIterable<Uint8Array>> {
    const info = await this.stat(sha256);
    if (!info) throw unknownBlob(sha256);
    const from = range.from ?? 0;
    const to = Math.min(range.to ?? info.bytes, info.bytes);
    if (from >= to) return emptyStream();
    return createReadStream(this.#path(sha256), {
      start: from,
      end: to - 1,
      highWaterMark: SERVER_LIMITS.artifactChunkBytes,
    }) as AsyncIterable<Uint8Array>;
  }

  async delete(sha256: string): Promise<boolean> {
    try {
      await rm(this.#path(sha256));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  get #incoming(): string {
    return join(this.#folder, "incoming");
  }

  #path(sha256: string): string {
    if (!sha256Schema.safeParse(sha256).success) {
      throw new FieldloopError("invalid_argument", `Find blob: "${sha256.slice(0, 80)}" is no SHA-256`);
    }
    return join(this.#folder, sha256.slice(0, 2), sha256);
  }

  async #write(
    file: FileHandle,
    content: BlobContent,
    { sha256, bytesMax = SERVER_LIMITS.blobBytesMax }: { sha256?: string; bytesMax?: number },
  ): Promise<BlobInfo> {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of content instanceof Uint8Array ? [content] : content) {
      bytes += chunk.length;
      if (bytes > bytesMax) {
        throw new FieldloopError("limit_exceeded", `Store blob: more than ${bytesMax} bytes`);
      }
      hash.update(chunk);
      await file.writeFile(chunk);
    }
    const actual = hash.digest("hex");
    if (sha256 !== undefined && actual !== sha256) {
      throw new FieldloopError(
        "package_hash_mismatch",
        `Store blob: the hash is "${actual}", wanted "${sha256}"`,
      );
    }
    await file.sync();
    return { sha256: actual, bytes };
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

// oxlint-disable-next-line require-yield
async function* emptyStream(): AsyncGenerator<Uint8Array> {}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function unknownBlob(sha256: string): FieldloopError {
  return new FieldloopError("not_found", `Read blob: there is no "${sha256}"`);
}
