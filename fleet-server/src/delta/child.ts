import { fork, type ChildProcess } from "node:child_process";
import { constants, setPriority } from "node:os";
import { FieldloopError, type ErrorCode } from "@fieldloop/protocol";
import type { Logger } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";

/** What the server and the process say to each other, as JSON over the process channel. */
export interface DeltaJob {
  readonly basePath: string;
  readonly targetPath: string;
  readonly deltaPath: string;
  readonly bytesMax: number;
}

export type DeltaAnswer =
  | { readonly kind: "made"; readonly bytes: number }
  | { readonly kind: "none" }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly message: string };

/** One process and its one delta; its end, whatever it is, settles `answer`. */
export class DeltaChild {
  /** @throws FieldloopError `timed_out`, `internal` where it died, `unavailable` where it was stopped, and what making it throws */
  readonly answer: Promise<Exclude<DeltaAnswer, { kind: "failed" }>>;
  readonly #child: ChildProcess;
  #ended: FieldloopError | undefined;

  constructor(job: DeltaJob, options: { readonly logger: Logger; readonly timeoutMs?: number }) {
    const timeoutMs = options.timeoutMs ?? SERVER_LIMITS.deltaTimeoutMs;
    this.#child = fork(new URL("./entry.js", import.meta.url), {
      execArgv: [`--max-old-space-size=${SERVER_LIMITS.deltaHeapMegabytes}`],
      serialization: "json",
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    this.#beNice(options.logger);
    const timer = setTimeout(
      () => this.#end(new FieldloopError("timed_out", `Make delta: more than ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    this.answer = this.#follow().finally(() => clearTimeout(timer));
    if (this.#child.connected) this.#child.send(job, () => undefined);
  }

  async stop(): Promise<void> {
    this.#end(new FieldloopError("unavailable", "Make delta: the server stops"));
    await this.answer.catch(() => undefined);
  }

  #follow(): DeltaChild["answer"] {
    return new Promise((resolve, reject) => {
      let answer: DeltaAnswer | undefined;
      this.#child.on("message", (message: DeltaAnswer) => {
        answer = message;
      });
      this.#child.on("error", (cause) =>
        reject(new FieldloopError("internal", `Start delta process: ${cause.message}`, { cause })),
      );
      this.#child.on("exit", (code, signal) => {
        if (this.#ended) reject(this.#ended);
        else if (answer?.kind === "failed") reject(new FieldloopError(answer.code, answer.message));
        else if (answer) resolve(answer);
        else
          reject(
            new FieldloopError("internal", `Make delta: the process died (${signal ?? `exit code ${code}`})`),
          );
      });
    });
  }

  #end(why: FieldloopError): void {
    this.#ended ??= why;
    this.#child.kill("SIGKILL");
  }

  /** Deltas yield to ingest and the API on the same machine. */
  #beNice(logger: Logger): void {
    if (this.#child.pid === undefined) return;
    try {
      setPriority(this.#child.pid, constants.priority.PRIORITY_BELOW_NORMAL);
    } catch (error) {
      logger.debug({ err: error }, "delta priority not lowered");
    }
  }
}
