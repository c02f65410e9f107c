import { constants } from "node:fs";
import { chmod, open, readFile, rename, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";

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
export async function syncFolder(path: string): Promise<void> {
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
