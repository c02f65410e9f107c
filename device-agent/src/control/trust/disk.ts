import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { codeOf, syncDirectory } from "../files.js";

/**
 * What the store of trust metadata does to a disk, one durable step at a time. Writing and making durable are two calls, so that
 * a test can put a power cut between any two of them.
 */
export interface TrustDisk {
  /** Undefined where there is no such file. */
  read(path: string): Promise<Buffer | undefined>;
  /** Names in a folder; none where there is no such folder. */
  list(path: string): Promise<string[]>;
  /** The whole file; on the medium only after {@link sync}. */
  write(path: string, bytes: Uint8Array): Promise<void>;
  /** The content of a file is on the medium. */
  sync(path: string): Promise<void>;
  /** The names in a folder are on the medium. */
  syncDirectory(path: string): Promise<void>;
  /** With all folders above it; their names are on the medium afterwards. */
  makeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** A file, or a folder with all that is in it; nothing where there is none. */
  remove(path: string): Promise<void>;
}

export const nodeDisk: TrustDisk = {
  async read(path) {
    try {
      return await readFile(path);
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "")) return undefined;
      throw error;
    }
  },
  async list(path) {
    try {
      return await readdir(path);
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "")) return [];
      throw error;
    }
  },
  async write(path, bytes) {
    const handle = await open(path, "w", 0o600);
    try {
      await handle.writeFile(bytes);
    } finally {
      await handle.close();
    }
  },
  async sync(path) {
    const handle = await open(path, "r+");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
  syncDirectory,
  async makeDirectory(path) {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    for (let made = resolve(path); ; made = dirname(made)) {
      await syncDirectory(dirname(made));
      if (made === resolve(first) || made === dirname(made)) return;
    }
  },
  rename,
  remove: (path) => rm(path, { recursive: true, force: true }),
};

/** Replaces a small file whole or not at all: temporary file, sync, rename, sync of the folder. */
export async function replaceFile(
  disk: TrustDisk,
  directory: string,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const temporary = `${directory}/${name}.tmp`;
  await disk.write(temporary, bytes);
  await disk.sync(temporary);
  await disk.rename(temporary, `${directory}/${name}`);
  await disk.syncDirectory(directory);
}
