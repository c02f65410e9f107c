import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { CLI_ENTRY, environment } from "./server-process.js";

export interface CliResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Largest resident memory that was seen, 0 where the system does not tell. */
  readonly rssBytesMax: number;
}

/** Runs `fieldloop …` to its end, by force after `timeoutMs`. */
export async function runCli(
  args: readonly string[],
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly timeoutMs?: number;
    readonly cwd?: string;
  } = {},
): Promise<CliResult> {
  const child = spawn(process.execPath, [CLI_ENTRY, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...environment(), ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  let rssBytesMax = 0;
  const watch = setInterval(() => (rssBytesMax = Math.max(rssBytesMax, rssOf(child.pid))), 20);
  const force = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 20_000);
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.once("close", (exitCode, exitSignal) => resolve([exitCode, exitSignal])),
  );
  clearInterval(watch);
  clearTimeout(force);
  const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString("utf8");
  return { code, signal, stdout: text(stdout), stderr: text(stderr), rssBytesMax };
}

function rssOf(pid: number | undefined): number {
  try {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;
  } catch {
    // Not Linux, or it has ended.
    return 0;
  }
}
