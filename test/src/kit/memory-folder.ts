import { mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";

const SHARED_MEMORY = "/dev/shm";
/** Many times what the tests have in their folders at a time. */
const FREE_BYTES_MIN = 2 ** 31;

/**
 * A folder in memory that goes with this process; undefined where the system has none, it is small, or programs in it do not run. Tests
 * make and remove ten thousands of small files: on a disk half of their time is the file system's. None of them is about the disk itself:
 * what a power cut leaves of files is simulated, and what a killed process wrote is there whatever is below.
 */
export function memoryFolder(): string | undefined {
  if (process.platform !== "linux" || !runsPrograms(SHARED_MEMORY)) return undefined;
  const { bavail, bsize } = statfsSync(SHARED_MEMORY);
  if (Math.min(bavail * bsize, freemem() / 2) < FREE_BYTES_MIN) return undefined;
  // Short: the path of a socket may have no more than 108 bytes (unix(7)).
  const folder = mkdtempSync(join(SHARED_MEMORY, "fl-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Whether something is mounted there, writable and without `noexec` (proc(5), `/proc/mounts`). */
function runsPrograms(path: string): boolean {
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .findLast(([, target]) => target === path);
  const options = mount?.[3]?.split(",") ?? [];
  return options.includes("rw") && !options.includes("noexec");
}
