import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { lockFile } from "./store/file-lock.js";

/** Says who holds the lock; the lock itself is on the other file. */
const NAME = "server.lock";
const LOCK_NAME = "server.lock.db";

/**
 * Makes sure that one server works in a data folder. The lock ends with its process, however that ends.
 * @returns the function that gives the folder back
 * @throws FieldloopError `database_in_use` where another server is running in it, `storage_failed` where nothing can be locked there
 */
export async function lockDataDir(dataDir: string): Promise<() => Promise<void>> {
  const path = join(dataDir, NAME);
  const unlock = tryLock(join(dataDir, LOCK_NAME));
  if (!unlock) {
    const owner = await readFile(path, "utf8").catch(() => "");
    throw new FieldloopError(
      "database_in_use",
      `Start server: ${owner === "" ? "another server" : `process ${owner.trim()}`} works in "${dataDir}" already; stop it, or give this one a folder of its own with --data`,
    );
  }
  await writeFile(path, String(process.pid), { mode: 0o600 });
  return async () => {
    await rm(path, { force: true });
    unlock();
  };
}

function tryLock(path: string): (() => void) | undefined {
  try {
    return lockFile(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("storage_failed", `Start server: "${path}" cannot be locked: ${reason}`, {
      cause,
    });
  }
}
