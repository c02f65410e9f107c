import { constants } from "node:fs";
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";

/** Files of secrets; each change is whole and durable when its promise resolves. A test of kills puts its own in place. */
export interface PrivateFiles {
  /** Makes a folder that only the server's user can look into. */
  makeFolder(path: string): Promise<void>;
  /** Names in a folder, sorted. */
  list(path: string): Promise<string[]>;
  /** Changes whenever the file does. @throws where there is none */
  stamp(path: string): Promise<string>;
  /** Undefined where there is none. @throws FieldloopError `storage_failed` for one that others can read */
  read(path: string): Promise<string | undefined>;
  write(path: string, text: string): Promise<void>;
  /** Puts one file in place of another. */
  replace(from: string, to: string): Promise<void>;
  /** Does nothing where there is none. */
  remove(path: string): Promise<void>;
}

export const privateFiles: PrivateFiles = {
  makeFolder: async (path) => {
    await mkdir(path, { recursive: true, mode: 0o700 });
  },
  list: async (path) => (await readdir(path)).sort(),
  stamp: async (path) => {
    const { mtimeMs, size, ino } = await stat(path);
    return `${mtimeMs} ${size} ${ino}`;
  },
  read: readPrivate,
  write: writePrivate,
  replace: async (from, to) => {
    await rename(from, to);
    await syncFolder(dirname(to));
  },
  remove: async (path) => {
    await rm(path, { force: true });
    await syncFolder(dirname(path));
  },
};

/**
 * A file of secrets; undefined where there is none.
 * @throws FieldloopError `storage_failed` for one that others can read
 */
export async function readPrivate(path: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(path);
    if (process.platform !== "win32" && (mode & 0o077) !== 0) {
      throw new FieldloopError(
        "storage_failed",
        `Read secret: "${path}" has mode ${(mode & 0o777).toString(8)}, wanted 600`,
      );
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Written aside, synced and renamed; the name is durable too, since what is signed with a key outlives a power cut only with it. */
export async function writePrivate(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await chmod(temporary, 0o600);
  await rename(temporary, path);
  await syncFolder(dirname(path));
}

/** Makes the names in a folder durable. Windows opens no folders; there the file system orders its metadata itself. */
async function syncFolder(path: string): Promise<void> {
  let folder: FileHandle | undefined;
  try {
    folder = await open(path, constants.O_RDONLY);
    await folder.sync();
  } catch (error) {
    if (process.platform !== "win32") throw error;
  } finally {
    await folder?.close();
  }
}
