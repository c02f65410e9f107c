import { fork, type ChildProcess } from "node:child_process";
import { constants, setPriority } from "node:os";
import { FieldloopError } from "@fieldloop/protocol";
import type { Logger } from "../context.js";
import type { EvaluationBody, Job, ParentMessage, ProgressMessage, TrainerMessage } from "./job.js";

export interface TrainerLimits {
  /** A process that reports nothing for this long is killed. */
  readonly progressTimeoutMs: number;
  /** A process that holds more memory than this is killed. */
  readonly memoryBytesMax: number;
  /** Time to stop by itself after a cancel. */
  readonly cancelGraceMs: number;
}

export const TRAINER_LIMITS: TrainerLimits = {
  progressTimeoutMs: 180_000,
  memoryBytesMax: 4 * 1024 ** 3,
  cancelGraceMs: 10_000,
};

const HEAP_SHARE = 0.5;

/** One trainer process and its one job. Its end, whatever it is, settles `result`. */
export class TrainerChild {
  readonly result: Promise<EvaluationBody>;
  readonly #child: ChildProcess;
  readonly #limits: TrainerLimits;
  readonly #logger: Logger;
  #watchdog: NodeJS.Timeout | undefined;
  #grace: NodeJS.Timeout | undefined;
  /** Why this side ended it, where it did. */
  #ended: FieldloopError | undefined;

  constructor(
    job: Job,
    options: {
      readonly onProgress: (progress: ProgressMessage) => void;
      readonly logger: Logger;
      readonly limits?: Partial<TrainerLimits>;
    },
  ) {
    this.#limits = { ...TRAINER_LIMITS, ...options.limits };
    this.#logger = options.logger;
    const heapMb = Math.round((this.#limits.memoryBytesMax * HEAP_SHARE) / 1024 ** 2);
    this.#child = fork(new URL("./trainer.js", import.meta.url), {
      execArgv: [`--max-old-space-size=${heapMb}`],
      serialization: "json",
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#beNice();
    this.result = this.#follow(options.onProgress);
    this.#watch();
    this.#send({ kind: "start", job });
  }

  /** Asks it to stop after the step it is in; kills it when that takes too long. */
  cancel(): void {
    this.#ended ??= new FieldloopError("cancelled", "Train: cancelled");
    this.#send({ kind: "cancel" });
    this.#grace ??= setTimeout(() => this.#child.kill("SIGKILL"), this.#limits.cancelGraceMs);
  }

  /** Ends it at once; its job can be started again. */
  async kill(): Promise<void> {
    this.#end(new FieldloopError("unavailable", "Train: the server stops"));
    await this.result.catch(() => undefined);
  }

  #follow(onProgress: (progress: ProgressMessage) => void): Promise<EvaluationBody> {
    return new Promise<EvaluationBody>((resolve, reject) => {
      let last: TrainerMessage | undefined;
      let stderr = "";
      this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
        stderr = (stderr + text).slice(-2_000);
      });
      this.#child.on("message", (message: TrainerMessage) => {
        this.#watch();
        if (message.kind !== "progress") last = message;
        else if (message.rssBytes > this.#limits.memoryBytesMax)
          this.#end(tooLarge(message.rssBytes, this.#limits.memoryBytesMax));
        else onProgress(message);
      });
      this.#child.on("error", (cause) =>
        reject(new FieldloopError("internal", `Start trainer: ${cause.message}`, { cause })),
      );
      this.#child.on("exit", (code, signal) => {
        clearTimeout(this.#watchdog);
        clearTimeout(this.#grace);
        if (last?.kind === "done" && !this.#ended) resolve(last.evaluation);
        else if (this.#ended) reject(this.#ended);
        else if (last?.kind === "failed") reject(new FieldloopError(last.code, last.message));
        else {
          this.#logger.warn({ code, signal, stderr }, "trainer process died");
          reject(
            new FieldloopError(
              "internal",
              `Train: the trainer process died (${signal ?? `exit code ${code}`})`,
            ),
          );
        }
      });
    });
  }

  #watch(): void {
    clearTimeout(this.#watchdog);
    const { progressTimeoutMs } = this.#limits;
    this.#watchdog = setTimeout(
      () =>
        this.#end(new FieldloopError("timed_out", `Train: no progress for ${progressTimeoutMs / 1000} s`)),
      progressTimeoutMs,
    );
  }

  #end(why: FieldloopError): void {
    this.#ended ??= why;
    this.#child.kill("SIGKILL");
  }

  #send(message: ParentMessage): void {
    // A process that is gone cannot be told anything; its exit settles the result.
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  /** Training yields to ingest and the API on the same machine. */
  #beNice(): void {
    if (this.#child.pid === undefined) return;
    try {
      setPriority(this.#child.pid, constants.priority.PRIORITY_BELOW_NORMAL);
    } catch (error) {
      this.#logger.debug({ err: error }, "trainer priority not lowered");
    }
  }
}

function tooLarge(bytes: number, bytesMax: number): FieldloopError {
  const mb = (value: number): number => Math.round(value / 1024 ** 2);
  return new FieldloopError(
    "limit_exceeded",
    `Train: the trainer process holds ${mb(bytes)} MB, at most ${mb(bytesMax)} MB`,
  );
}
