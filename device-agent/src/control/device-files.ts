import { constants } from "node:fs";
import { copyFile, type FileHandle, mkdir, open, rename, rmdir, statfs, unlink } from "node:fs/promises";
import { codeOf } from "./files.js";

/** A file that is being written from its end on. */
export interface AppendFile {
  write(bytes: Uint8Array): Promise<void>;
  /** What was written is on the disk, not only on its way. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/**
 * The operations by which the update changes the disk, one call of the system each: a test puts a disk in their place that fills up, loses
 * what was not synced, or tears the last write. All of them reject with the system's own errors.
 */
export interface DeviceFiles {
  /** `w` begins an empty file, `a` goes on at the end of one. */
  open(path: string, how: "w" | "a"): Promise<AppendFile>;
  rename(from: string, to: string): Promise<void>;
  /** The whole content, into a file that is there or not. */
  copy(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  makeDirectory(path: string): Promise<void>;
  removeDirectory(path: string): Promise<void>;
  /** The content of a file. */
  syncFile(path: string): Promise<void>;
  /** The names in a folder: a rename is in the folder, not in the file. */
  syncDirectory(path: string): Promise<void>;
  /** What a program without privileges may still write on this path's file system. */
  freeBytes(path: string): Promise<number>;
}

/** Owner only: a state folder holds a credential. */
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

export const nodeFiles: DeviceFiles = {
  async open(path, how) {
    const handle = await open(path, how, FILE_MODE);
    return {
      write: (bytes) => handle.writeFile(bytes),
      sync: () => handle.sync(),
      close: () => handle.close(),
    };
  },
  rename: (from, to) => rename(from, to),
  copy: (from, to) => copyFile(from, to),
  unlink: (path) => unlink(path),
  makeDirectory: (path) => mkdir(path, { mode: DIRECTORY_MODE }),
  removeDirectory: (path) => rmdir(path),
  syncFile: (path) => sync(path, "r+"),
  async syncDirectory(path) {
    try {
      await sync(path, constants.O_RDONLY);
    } catch (error) {
      // Windows opens no folders; there the file system orders its metadata itself.
      if (!["EISDIR", "EPERM", "EACCES", "EINVAL"].includes(codeOf(error) ?? "")) throw error;
    }
  },
  async freeBytes(path) {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  },
};

async function sync(path: string, flags: string | number): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, flags);
    await handle.sync();
  } finally {
    await handle?.close();
  }
}
