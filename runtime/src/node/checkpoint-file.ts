import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";

/** Replaces a checkpoint file: temporary file beside it, fsync, rename, so that a reader finds a whole one or the one before. */
export async function writeCheckpointFile(path: string, bytes: Uint8Array): Promise<void> {
  const scratch = `${path}.new`;
  const file = await open(scratch, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(scratch, path);
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Bytes of a checkpoint file, or undefined when there is none. */
export async function readCheckpointFile(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
