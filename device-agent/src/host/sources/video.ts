import { type ChildProcess, spawn } from "node:child_process";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import type { SourceSpec } from "../../source-spec.js";
import { PpmReader } from "./ppm.js";
import type { DropPolicy, Source, SourceContext } from "./source.js";

type VideoSpec = Extract<SourceSpec, { kind: "video" }>;

/** A video file, decoded by an `ffmpeg` child process: its crash is not ours, and it reads local files only. */
export class VideoSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: VideoSpec;
  readonly #context: SourceContext;
  #child: ChildProcess | undefined;
  #closed = false;
  #running: Promise<void> = Promise.resolve();
  #retryTimer: NodeJS.Timeout | undefined;
  #wake: (() => void) | undefined;

  constructor(spec: VideoSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.pace === "realtime" ? "oldest" : "wait";
  }

  open(): Promise<void> {
    this.#running = this.#run();
    return Promise.resolve();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#child?.kill("SIGKILL");
    clearTimeout(this.#retryTimer);
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    let waitMs = AGENT_LIMITS.sourceRestartMinMs as number;
    while (!this.#closed) {
      try {
        await this.#play();
        this.#context.onTrouble(undefined);
        waitMs = AGENT_LIMITS.sourceRestartMinMs;
        if (!this.#spec.loop) return;
      } catch (error) {
        if (this.#closed) return;
        this.#context.onTrouble(toFieldloopError(error));
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          this.#retryTimer = setTimeout(resolve, waitMs);
        });
        waitMs = Math.min(waitMs * 2, AGENT_LIMITS.sourceRestartMaxMs);
      }
    }
  }

  /** Plays the file once. @throws FieldloopError `source_failed` */
  async #play(): Promise<void> {
    const child = spawn("ffmpeg", ffmpegArguments(this.#spec), { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    let complaint = "";
    child.stderr.on("data", (chunk: Buffer) => {
      complaint = (complaint + chunk.toString("utf8")).slice(-500);
    });
    const ended = new Promise<number | null>((resolve, reject) => {
      child.on("error", (cause) => {
        const what = "code" in cause && cause.code === "ENOENT" ? "ffmpeg is not installed" : cause.message;
        reject(new FieldloopError("source_failed", `Play video "${this.#spec.path}": ${what}`, { cause }));
      });
      child.on("close", resolve);
    });
    // Only awaited below: an early error must not count as unhandled.
    ended.catch(() => undefined);
    const reader = new PpmReader();
    try {
      for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
        for (const image of reader.push(chunk)) await this.#deliver(image);
        if (this.#closed) break;
      }
    } finally {
      if (this.#closed) child.kill("SIGKILL");
    }
    const code = await ended;
    if (code !== 0 && !this.#closed) {
      throw new FieldloopError(
        "source_failed",
        `Play video "${this.#spec.path}": ${complaint.trim() || `ffmpeg ended with ${code}`}`,
      );
    }
  }

  async #deliver(image: { width: number; height: number; data: Uint8Array }): Promise<void> {
    if (this.dropPolicy === "wait") await this.#context.sink.space();
    if (this.#closed) return;
    this.#context.sink.offer({
      frame: { kind: "pixels", ...image, channels: 3 },
      time: this.#context.clock.now(),
    });
  }
}

function ffmpegArguments(spec: VideoSpec): string[] {
  return [
    ...["-nostdin", "-loglevel", "error", "-threads", "1"],
    // A playlist inside the file cannot make it open a URL.
    ...["-protocol_whitelist", "file,pipe"],
    ...(spec.pace === "realtime" ? ["-re"] : []),
    ...["-i", `file:${spec.path}`, "-an", "-sn"],
    ...(spec.fps === undefined ? [] : ["-vf", `fps=${spec.fps}`]),
    ...["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "pipe:1"],
  ];
}
