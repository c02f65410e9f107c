import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { FieldloopError } from "@fieldloop/protocol";
import { probeReplySchema, type ProbeReply, type ProbeRequest } from "./probe-messages.js";
import type { ProbeOptions, ProviderChoice } from "./providers-types.js";
import { libraryEnvironment } from "./runtime-library.js";

const ENTRY = fileURLToPath(new URL("./probe-entry.js", import.meta.url));
export const PROBE_LIMITS = {
  timeoutMs: 60_000,
  memoryBytesMax: 2 * 1024 ** 3,
  runsMax: 20,
  replyBytesMax: 256 * 1024,
  /** Of what the process wrote before it died: its end, which is where a driver says why. */
  noiseBytesMax: 4 * 1024,
  memoryCheckEveryMs: 100,
} as const;

/** What decides how a probing process runs. */
export type ProbeProcessOptions = Pick<
  ProbeOptions,
  "environment" | "runtimeLibrary" | "timeoutMs" | "memoryBytesMax" | "signal"
>;

/** Tries one variant on one execution provider in a process of its own. Never throws: a failure is the reason. */
export async function probePair(
  packageDir: string,
  executionProvider: string,
  variant: string,
  options: ProbeOptions,
): Promise<ProviderChoice> {
  const { threadCount, runsMax = PROBE_LIMITS.runsMax } = options;
  const { works, correct, medianMs, shares, reason } = await probe(
    { kind: "package", packageDir, executionProvider, variant, threadCount, runsMax },
    options,
  );
  return {
    executionProvider,
    variant,
    works,
    correct,
    medianMs,
    shares,
    ...(reason === undefined ? {} : { reason }),
  };
}

/** Runs one probing process to its answer or its end. That it fails is its reason, not an error. */
export async function probe(request: ProbeRequest, options: ProbeProcessOptions): Promise<ProbeReply> {
  const { timeoutMs = PROBE_LIMITS.timeoutMs, memoryBytesMax = PROBE_LIMITS.memoryBytesMax } = options;
  const child = spawn(process.execPath, [ENTRY, String(process.pid)], {
    stdio: ["pipe", "ignore", "pipe", "pipe"],
    ...environmentOf(options),
  });
  let killedFor: { code: string; message: string } | undefined;
  const kill = (code: string, message: string): void => {
    killedFor ??= { code, message };
    child.kill("SIGKILL");
  };
  const timer = setTimeout(() => kill("timed_out", `it took longer than ${timeoutMs} ms`), timeoutMs);
  const watch = setInterval(() => {
    const bytes = residentBytes(child.pid);
    if (bytes > memoryBytesMax) kill("limit_exceeded", `it took more than ${memoryBytesMax} bytes of memory`);
  }, PROBE_LIMITS.memoryCheckEveryMs);
  const cancel = (): void => kill("cancelled", "cancelled");
  options.signal?.addEventListener("abort", cancel, { once: true });
  try {
    const ended = endOf(child);
    child.stdin!.on("error", () => undefined);
    child.stdin!.end(`${JSON.stringify(request)}\n`);
    const reply = tailOf(child.stdio[3] as Readable, PROBE_LIMITS.replyBytesMax);
    const noise = tailOf(child.stderr!, PROBE_LIMITS.noiseBytesMax);
    const how = await ended;
    return killedFor === undefined
      ? (parseReply(await reply) ?? failed("host_crashed", `${how}${lastLine(await noise)}`))
      : failed(killedFor.code, killedFor.message);
  } finally {
    clearTimeout(timer);
    clearInterval(watch);
    options.signal?.removeEventListener("abort", cancel);
  }
}

function environmentOf({ environment, runtimeLibrary }: ProbeProcessOptions): { env?: NodeJS.ProcessEnv } {
  if (environment !== undefined) return { env: libraryEnvironment(environment, runtimeLibrary) };
  if (runtimeLibrary === undefined) return {};
  throw new FieldloopError(
    "invalid_argument",
    "Probe with a library of its own: wanted an environment as well",
  );
}

function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once("error", (error) => resolve(`the probing process could not start: ${error.message}`));
    child.once("close", (code, signal) =>
      resolve(
        signal === null
          ? `the probing process ended with code ${code}`
          : `the driver or library killed the probing process (${signal})`,
      ),
    );
  });
}

/** The last `bytesMax` bytes of a stream, as text. */
async function tailOf(stream: Readable, bytesMax: number): Promise<string> {
  let tail = Buffer.alloc(0);
  try {
    for await (const chunk of stream) {
      tail = Buffer.concat([tail, chunk as Buffer]);
      if (tail.length > bytesMax) tail = tail.subarray(tail.length - bytesMax);
    }
  } catch {
    // The process was killed while it wrote: what came is what there is.
  }
  return tail.toString("utf8");
}

function parseReply(text: string): ProbeReply | undefined {
  try {
    const parsed = probeReplySchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

function lastLine(noise: string): string {
  const line = noise.trim().split("\n").at(-1)?.trim() ?? "";
  return line === "" ? "" : `: ${line.slice(0, 400)}`;
}

function failed(code: string, message: string): ProbeReply {
  return {
    works: false,
    correct: false,
    medianMs: null,
    shares: null,
    reason: { code, message: `Probe execution provider: ${message}` },
  };
}

/** Resident memory of a process (proc(5)); 0 where the system does not say. */
function residentBytes(pid: number | undefined): number {
  if (pid === undefined || process.platform !== "linux") return 0;
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return Number(kib ?? 0) * 1024;
  } catch {
    // It ended meanwhile.
    return 0;
  }
}
