import { spawn } from "node:child_process";
import { FieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import { withoutLogins } from "../../source-parts.js";

export interface FfmpegPlan {
  /** Action and quoted name, for errors: `Open camera "/dev/video0"`. */
  readonly action: string;
  readonly arguments: readonly string[];
  /** Written to its standard input, which then ends: what must not stand in a list of processes. */
  readonly input?: string;
  /** Texts that no message may hold. */
  readonly secrets?: readonly string[];
  /** A stream without end: silence for too long is a failure. */
  readonly live: boolean;
  /** How long such a silence may be, also before the first byte; the agent's limits where nothing is said. */
  readonly quietMs?: number;
}

const COMPLAINT_LENGTH_MAX = 500;
const WATCH_INTERVAL_MS = 250;

/** What ffmpeg says, and what a person should do about it. */
const HINTS: readonly (readonly [RegExp, string])[] = [
  [/device or resource busy/i, "another program uses the device"],
  [/permission denied/i, "this user may not use it: the group video (cameras) or audio (microphones) may"],
  [/inappropriate ioctl|not a video capture device/i, "it is no camera"],
  [/no such device|no such file or directory/i, "there is no such device or file"],
  [/401 unauthorized|authorization failed/i, "the user or password is not right"],
  [/404 not found/i, "the server has no such stream"],
  [/connection refused/i, "nobody answers there"],
  [/connection timed out|no route to host/i, "the host cannot be reached"],
  [/invalid data found/i, "it holds nothing that ffmpeg can decode"],
];

/**
 * Runs an `ffmpeg` child process, whose crash is not ours, and gives its output piece by piece: the next when `take` has resolved.
 * @throws FieldloopError `source_failed` with the cause, where it does not end by itself or by `signal`
 */
export async function runFfmpeg(
  plan: FfmpegPlan,
  signal: AbortSignal,
  take: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const child = spawn("ffmpeg", ["-hide_banner", "-loglevel", "error", ...plan.arguments], {
    stdio: [plan.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  const stdout = child.stdout!;
  let complaint = "";
  child.stderr!.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString("utf8")).slice(-2 * COMPLAINT_LENGTH_MAX);
  });
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(plan.input);
  const kill = (): void => void child.kill("SIGKILL");
  signal.addEventListener("abort", kill, { once: true });
  if (signal.aborted) kill();
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("error", (cause) => {
      const missing = "code" in cause && cause.code === "ENOENT";
      const what = missing ? "ffmpeg is not installed" : cause.message;
      reject(new FieldloopError("source_failed", `${plan.action}: ${what}`, { cause }));
    });
    child.on("close", resolve);
  });
  // Only awaited below: an early error must not count as unhandled.
  ended.catch(() => undefined);
  const watch = new StallWatch(plan, kill);
  try {
    for await (const chunk of stdout as AsyncIterable<Buffer>) {
      watch.taking();
      await take(chunk);
      watch.waiting();
      if (signal.aborted) break;
    }
  } finally {
    watch.stop();
    signal.removeEventListener("abort", kill);
    // A reader that threw must not leave its writer behind; after the end this does nothing.
    kill();
  }
  const code = await ended;
  if (signal.aborted) return;
  if (watch.stalled) {
    throw new FieldloopError("source_failed", `${plan.action}: nothing came for ${watch.quietMs} ms`);
  }
  if (complaint.trim() !== "" && code !== 0) throw failure(plan, complaint);
  if (code !== 0 && code !== null) throw failure(plan, `ffmpeg ended with ${code}`);
  if (plan.live) throw failure(plan, complaint || "the stream ended");
}

/** Kills a process that gives nothing; the time that we ourselves take over a piece does not count. */
class StallWatch {
  stalled = false;
  quietMs: number;
  #waitsSince: number | undefined = performance.now();
  readonly #timer: NodeJS.Timeout | undefined;

  readonly #plan: FfmpegPlan;

  constructor(plan: FfmpegPlan, kill: () => void) {
    this.#plan = plan;
    this.quietMs = plan.quietMs ?? AGENT_LIMITS.sourceFirstByteMs;
    if (!plan.live) return;
    this.#timer = setInterval(() => {
      if (this.#waitsSince === undefined || performance.now() - this.#waitsSince < this.quietMs) return;
      this.stalled = true;
      kill();
    }, WATCH_INTERVAL_MS);
  }

  taking(): void {
    this.#waitsSince = undefined;
    this.quietMs = this.#plan.quietMs ?? AGENT_LIMITS.sourceStallMs;
  }

  waiting(): void {
    this.#waitsSince = performance.now();
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

function failure(plan: FfmpegPlan, complaint: string): FieldloopError {
  let text = withoutLogins(complaint);
  for (const secret of plan.secrets ?? []) if (secret !== "") text = text.replaceAll(secret, "…");
  const hint = HINTS.find(([pattern]) => pattern.test(text))?.[1];
  const said = text.trim().replace(/\s+/g, " ").slice(-COMPLAINT_LENGTH_MAX);
  return new FieldloopError("source_failed", `${plan.action}: ${hint ? `${hint} (${said})` : said}`);
}
