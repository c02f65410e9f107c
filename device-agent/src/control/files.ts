import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import type { z } from "zod";

/** Writes a whole file or leaves the old one: temporary file, fsync, rename, fsync of the folder. */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string, mode = 0o600): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    const handle = await open(temporary, "w", mode);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    throw new FieldloopError("storage_failed", `Write "${path}": ${reasonOf(cause)}`, { cause });
  }
}

/** Makes the names in a folder durable (a rename is in the folder, not in the file). */
export async function syncDirectory(path: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, constants.O_RDONLY);
    await handle.sync();
  } catch (error) {
    // Windows opens no folders; there the file system orders its metadata itself.
    if (!["EISDIR", "EPERM", "EACCES", "EINVAL"].includes(codeOf(error) ?? "")) throw error;
  } finally {
    await handle?.close();
  }
}

/**
 * Reads a JSON file of the state folder. A file that does not parse is kept aside as `….corrupt` and reported through
 * `onCorrupt`: the agent goes on with what it knows otherwise, and nothing is silently overwritten.
 */
export async function readJsonFile<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
  onCorrupt: (message: string) => void,
): Promise<z.output<Schema> | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw new FieldloopError("storage_failed", `Read "${path}": ${reasonOf(error)}`, { cause: error });
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    await rename(path, `${path}.corrupt`);
    onCorrupt(`"${path}" does not parse and was kept aside as "${path}.corrupt"`);
    return undefined;
  }
}

export async function writeJsonFile(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}

export async function ensureDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
}

export async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

/** `ENOENT` and the like, where an error has one. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
