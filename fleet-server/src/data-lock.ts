import { open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";

const NAME = "server.lock";

/**
 * Makes sure that one server works in a data folder. The lock of a process that is gone is taken over.
 * @returns the function that gives the folder back
 * @throws FieldloopError `conflict` where another server is running in it
 */
export async function lockDataDir(dataDir: string): Promise<() => Promise<void>> {
  const path = join(dataDir, NAME);
  for (let tries = 0; tries < 2; tries++) {
    try {
      const file = await open(path, "wx", 0o600);
      await file.writeFile(String(process.pid));
      await file.close();
      return () => rm(path, { force: true });
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    const owner = Number(await readFile(path, "utf8").catch(() => ""));
    if (isRunning(owner)) {
      throw new FieldloopError("conflict", `Start server: process ${owner} works in "${dataDir}" already`);
    }
    await rm(path, { force: true });
  }
  throw new FieldloopError("conflict", `Start server: another process starts in "${dataDir}"`);
}

/** A process of the same number may be another program after a restart of the machine; its own number is a lock left by a crash. */
function isRunning(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs as another user.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
