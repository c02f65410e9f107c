import { fork, type ChildProcess } from "node:child_process";

/** How a scratch process ended without an answer. */
export type ScratchEnd = "crashed" | "timed_out" | "memory";

export interface ScratchLimits {
  /** For one answer. The process is killed when it takes longer. */
  readonly timeoutMs: number;
  /** Resident memory; checked every {@link SCRATCH.memoryCheckMs}. */
  readonly rssBytesMax: number;
}

export const SCRATCH = {
  memoryCheckMs: 25,
  /** For a process to start and load its libraries; a busy machine takes seconds. */
  startTimeoutMs: 60_000,
  /** Bytes of native error output that are kept. */
  stderrBytesMax: 4096,
  /** Written by the child before it kills itself for its memory. */
  memoryMark: "fieldloop-memory-exceeded",
} as const;

/** The process died or was killed before it answered. */
export class ScratchFailure extends Error {
  override readonly name = "ScratchFailure";
  readonly end: ScratchEnd;
  /** How far it had come, as it said itself. */
  readonly phase: string | undefined;

  constructor(end: ScratchEnd, message: string, phase: string | undefined) {
    super(message);
    this.end = end;
    this.phase = phase;
  }
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** What a child sends: that it listens, where it is, or its answer. */
export type ScratchMessage =
  | { readonly ready: true }
  | { readonly phase: string }
  | { readonly answer: unknown };

/**
 * A child process for work that may crash, hang or eat memory: native code on files that nobody vouches for. One question
 * at a time; a process that dies fails its question only, and the next one starts a new process. Nothing that the native
 * library prints reaches the terminal.
 */
export class ScratchProcess {
  readonly #entry: URL;
  readonly #limits: ScratchLimits;
  #child: ChildProcess | undefined;
  #ready: Promise<void> = Promise.resolve();
  #closed: Promise<void> = Promise.resolve();
  #waiting: Waiting | undefined;
  #phase: string | undefined;
  #stderr = "";
  #ended: ScratchEnd | undefined;

  /** @param entry the compiled child, which calls `serveScratch` of `scratch-child.ts` */
  constructor(entry: URL, limits: ScratchLimits) {
    this.#entry = entry;
    this.#limits = limits;
  }

  /** @throws ScratchFailure where the process ended first */
  async ask(request: unknown, timeoutMs = this.#limits.timeoutMs): Promise<unknown> {
    if (this.#waiting !== undefined) throw new Error("a scratch process answers one question at a time");
    const child = this.#child ?? this.#start();
    this.#phase = undefined;
    const kill = () => {
      this.#ended = "timed_out";
      child.kill("SIGKILL");
    };
    let timer = setTimeout(kill, SCRATCH.startTimeoutMs);
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
        void this.#ready.then(() => {
          // Starting is not the question's time.
          clearTimeout(timer);
          timer = setTimeout(kill, timeoutMs);
          // A failed send means that the process is gone, which its end reports.
          child.send(request as object, () => undefined);
        });
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
  }

  /** Ends the process. Work under way is cut short: nothing of it is kept. */
  async stop(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#closed;
  }

  #start(): ChildProcess {
    const child = fork(this.#entry, [String(this.#limits.rssBytesMax)], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      serialization: "advanced",
      execArgv: [],
    });
    this.#child = child;
    this.#stderr = "";
    this.#ended = undefined;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-SCRATCH.stderrBytesMax);
    });
    this.#ready = new Promise((resolve) => {
      child.on("message", (message: ScratchMessage) => {
        if ("ready" in message) resolve();
        else if ("phase" in message) this.#phase = message.phase;
        else this.#waiting?.resolve(message.answer);
      });
    });
    // A process that could not start has no end to report.
    child.on("error", (cause) => {
      if (child.pid !== undefined) return;
      this.#child = undefined;
      this.#waiting?.reject(new ScratchFailure("crashed", `it did not start: ${cause.message}`, undefined));
    });
    this.#closed = new Promise((resolve) => {
      if (child.pid === undefined) resolve();
      child.once("close", (code, signal) => {
        this.#child = undefined;
        this.#waiting?.reject(this.#failure(code, signal));
        resolve();
      });
    });
    return child;
  }

  #failure(code: number | null, signal: NodeJS.Signals | null): ScratchFailure {
    if (this.#ended === "timed_out") {
      return new ScratchFailure("timed_out", "it gave no answer within the time limit", this.#phase);
    }
    if (this.#stderr.includes(SCRATCH.memoryMark)) {
      const limit = Math.round(this.#limits.rssBytesMax / 2 ** 20);
      return new ScratchFailure("memory", `it took more than ${limit} MiB of memory`, this.#phase);
    }
    const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
    const lastLine = this.#stderr.trim().split("\n").at(-1) ?? "";
    return new ScratchFailure(
      "crashed",
      `it ended with ${how}${lastLine === "" ? "" : ` (${lastLine.slice(0, 300)})`}`,
      this.#phase,
    );
  }
}
