import { type ChildProcess, fork } from "node:child_process";
import { FieldloopError, type ErrorCode } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";
import { cancelled } from "./download.js";
import { HOST_ENVIRONMENT, HOST_V8_FLAGS } from "./footprint.js";
import { lowerPriority } from "./priority.js";

/** What is to be rebuilt, and from what. */
export interface RebuildJob {
  readonly basePath: string;
  readonly deltaPath: string;
  /** As the manifest says: a delta that claims to make another file is not begun. */
  readonly target: { readonly sha256: string; readonly bytes: number };
}

/**
 * Rebuilds a file and gives it to `sink`, chunk by chunk in order. Where it resolves it was the target byte for byte.
 * @throws FieldloopError `delta_malformed`, `delta_base_mismatch`, `timed_out`, `internal` (it died), `cancelled`; what `sink` throws
 */
export type Rebuild = (
  job: RebuildJob,
  signal: AbortSignal,
  sink: (chunk: Uint8Array) => Promise<void>,
) => Promise<void>;

/** What the process says at its end. */
export type RebuildEnd =
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly message: string };

const ENTRY = new URL("../delta/entry.js", import.meta.url);
/** The file comes on standard output; a pipe is as much of it as is on its way. */
const STDIO: ("ignore" | "pipe" | "ipc")[] = ["ignore", "pipe", "ignore", "ipc"];
const HEAP_MEGABYTES = 64;

/**
 * The same in a process of its own, below the others in priority: the control process goes on answering, and its memory does not grow with
 * models that it looks after. The process holds the delta and a few chunks, and ends with its work, its time, or its parent.
 */
export const rebuildInProcess: Rebuild = async (job, signal, sink) => {
  const child = fork(ENTRY, [], {
    execArgv: [...HOST_V8_FLAGS, `--max-old-space-size=${HEAP_MEGABYTES}`],
    env: { ...HOST_ENVIRONMENT },
    stdio: STDIO,
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), AGENT_LIMITS.deltaRebuildTimeoutMs);
  const kill = (): void => void child.kill("SIGKILL");
  signal.addEventListener("abort", kill, { once: true });
  try {
    const ended = endOf(child);
    lowerPriority(child.pid);
    child.send(job, () => undefined);
    try {
      for await (const chunk of child.stdout!) await sink(chunk as Buffer);
    } catch (error) {
      child.kill("SIGKILL");
      await ended;
      throw error;
    }
    const end = await ended;
    if (signal.aborted) throw cancelled(signal);
    if (end.kind === "failed") throw new FieldloopError(end.code, end.message);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", kill);
  }
};

/** How it ended: its own word, else what the system says. */
function endOf(child: ChildProcess): Promise<RebuildEnd> {
  return new Promise((resolve) => {
    let said: RebuildEnd | undefined;
    child.on("message", (message: RebuildEnd) => {
      said = message;
    });
    const died = (how: string): void => {
      const code = child.killed ? "timed_out" : "internal";
      resolve(said ?? { kind: "failed", code, message: `Rebuild by delta: the process ended (${how})` });
    };
    child.on("error", (error) => died(error.message));
    child.on("close", (code, signal) => died(signal ?? `exit ${code ?? 0}`));
  });
}
