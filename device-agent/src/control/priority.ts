import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { constants, setPriority } from "node:os";
import { promisify } from "node:util";

const run = promisify(execFile);
const TRIAL_TIMEOUT_MS = 5_000;
/** Of util-linux, chrt(1): a program under the scheduling policy SCHED_IDLE, sched(7). */
const IDLE_LAUNCHER = ["chrt", "-i", "0"] as const;

let idleLauncher: Promise<readonly string[]> | undefined;

/** Lets whoever serves frames go first, and what the process starts itself with it; where the system lets it. */
export function lowerPriority(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // A system that does not let it is none the worse for it.
  }
}

/**
 * Lets threads of this process that only help it, to collect garbage, compile and read files, make way for whoever serves frames. The calling
 * one, and what it starts, stays as it is. On Linux a thread has a priority of its own (setpriority(2)); elsewhere nothing is done.
 */
export async function lowerHelperThreads(): Promise<void> {
  if (process.platform !== "linux") return;
  const threads = await readdir("/proc/self/task").catch(() => []);
  for (const thread of threads.map(Number)) if (thread !== process.pid) lowerPriority(thread);
}

/**
 * What to put before the command of a program that is to run only where a processor has nothing else to do; nothing where the system has no
 * such thing. Other than with a mere lower priority, a thread that wakes up for a frame takes such a processor for a free one and has it at
 * once, instead of waiting for a busy one.
 */
export function launcherWhenIdle(): Promise<readonly string[]> {
  idleLauncher ??= tryLauncher();
  return idleLauncher;
}

async function tryLauncher(): Promise<readonly string[]> {
  if (process.platform !== "linux") return [];
  const [program, ...args] = IDLE_LAUNCHER;
  return run(program, [...args, "true"], { timeout: TRIAL_TIMEOUT_MS }).then(
    () => IDLE_LAUNCHER,
    () => [],
  );
}
