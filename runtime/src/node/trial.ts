import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FieldloopError, type ErrorCode } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { blameNode } from "./blame.js";
import { readFolded } from "./fold.js";
import { cleanNativeMessage } from "./native-message.js";
import { ScratchFailure, ScratchProcess, type ScratchEnd } from "./scratch-process.js";
import type { TrialReply, TrialRequest, TrialResult } from "./trial-messages.js";

export interface TrialOptions {
  readonly feeds?: Readonly<Record<string, Tensor>>;
  readonly fetches?: readonly string[];
  readonly graphOptimization?: TrialRequest["graphOptimization"];
  /** Default `cpu`. */
  readonly executionProvider?: string;
  /** True also asks which provider ran which share of the nodes. */
  readonly shares?: boolean;
  /** False keeps the values of the results out; types and shapes always come. Default true. */
  readonly values?: boolean;
  /** To open and run once. Default 60 s. */
  readonly timeoutMs?: number;
  /** Of the process that runs it. Default 4 GiB. */
  readonly rssBytesMax?: number;
  /** False does not look for the node at fault, which takes further runs. Default true. */
  readonly blame?: boolean;
}

const DEFAULTS = { timeoutMs: 60_000, rssBytesMax: 4 * 2 ** 30 } as const;

type TrialLimits = Pick<TrialOptions, "timeoutMs" | "rssBytesMax">;

/** A process for trials, one after the other; it is replaced when a model ends it. */
export interface TrialProcess {
  /** See {@link tryModel}. */
  run(bytes: Uint8Array, options?: Omit<TrialOptions, keyof TrialLimits>): Promise<TrialResult>;
  /** The graph as the engine writes it after optimization. Throws what {@link tryModel} throws. */
  fold(bytes: Uint8Array, level: "basic" | "extended"): Promise<Uint8Array>;
}

/**
 * Opens a model, and runs it once where feeds are given, in a process of its own: a model that crashes, hangs or eats
 * memory ends that process alone. The file lies by itself in a folder, so it can read no other as weights.
 * @throws FieldloopError `model_load_failed` or `model_run_failed` with the engine's reason or the end of the process,
 * `timed_out`, `limit_exceeded` for memory; naming the node where one run after the other finds it
 */
export function tryModel(bytes: Uint8Array, options: TrialOptions = {}): Promise<TrialResult> {
  return withTrial(options, (trial) => trial.run(bytes, options));
}

/** Several trials in one process: starting one costs a few tenths of a second. */
export async function withTrial<T>(
  options: TrialLimits,
  work: (trial: TrialProcess) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-trial-"));
  const limits = {
    timeoutMs: options.timeoutMs ?? DEFAULTS.timeoutMs,
    rssBytesMax: options.rssBytesMax ?? DEFAULTS.rssBytesMax,
  };
  const child = new ScratchProcess(new URL("./trial-entry.js", import.meta.url), limits);
  try {
    return await work(new Trial(child, folder, limits.timeoutMs));
  } finally {
    await child.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs in one child after the other, with the file in a folder of their own. */
class Trial implements TrialProcess {
  readonly #child: ScratchProcess;
  readonly #folder: string;
  readonly #timeoutMs: number;

  constructor(child: ScratchProcess, folder: string, timeoutMs: number) {
    this.#child = child;
    this.#folder = folder;
    this.#timeoutMs = timeoutMs;
  }

  async run(bytes: Uint8Array, options: TrialOptions = {}): Promise<TrialResult> {
    try {
      return await this.#ask(bytes, options, this.#timeoutMs);
    } catch (error) {
      if (!(error instanceof ScratchFailure)) throw error;
      const node =
        options.blame === false
          ? undefined
          : await blameNode(bytes, this.#timeoutMs, (part, timeoutMs) =>
              this.#endOf(part, { ...options, values: false, graphOptimization: "disabled" }, timeoutMs),
            );
      throw this.#failure(error, node);
    }
  }

  async fold(bytes: Uint8Array, level: "basic" | "extended"): Promise<Uint8Array> {
    const optimizedModelPath = join(this.#folder, "optimized.onnx");
    try {
      await this.#ask(bytes, { graphOptimization: level }, this.#timeoutMs, optimizedModelPath);
    } catch (error) {
      throw error instanceof ScratchFailure ? this.#failure(error, undefined) : error;
    }
    return readFolded(optimizedModelPath, bytes, level);
  }

  /** How a run ends without an answer; `undefined` where it ends well or with an error of the engine. */
  async #endOf(bytes: Uint8Array, options: TrialOptions, timeoutMs: number): Promise<ScratchEnd | undefined> {
    const { fetches: _, ...rest } = options;
    try {
      await this.#ask(bytes, rest, timeoutMs);
      return undefined;
    } catch (error) {
      return error instanceof ScratchFailure ? error.end : undefined;
    }
  }

  async #ask(
    bytes: Uint8Array,
    options: TrialOptions,
    timeoutMs: number,
    optimizedModelPath?: string,
  ): Promise<TrialResult> {
    const modelPath = join(this.#folder, "model.onnx");
    await writeFile(modelPath, bytes);
    const request: TrialRequest = {
      modelPath,
      graphOptimization: options.graphOptimization ?? "all",
      values: options.values ?? true,
      ...(options.feeds === undefined ? {} : { feeds: options.feeds }),
      ...(options.fetches === undefined ? {} : { fetches: options.fetches }),
      ...(optimizedModelPath === undefined ? {} : { optimizedModelPath }),
      ...(options.executionProvider === undefined ? {} : { executionProvider: options.executionProvider }),
      ...(options.shares === undefined ? {} : { shares: options.shares }),
    };
    const reply = (await this.#child.ask(request, timeoutMs)) as TrialReply;
    if (reply.ok) return reply.result;
    throw new FieldloopError(reply.code, cleanNativeMessage(reply.message, bytes));
  }

  #failure(failure: ScratchFailure, node: string | undefined): FieldloopError {
    const isOpening = failure.phase !== "running";
    const codes: Record<ScratchEnd, ErrorCode> = {
      crashed: isOpening ? "model_load_failed" : "model_run_failed",
      timed_out: "timed_out",
      memory: "limit_exceeded",
    };
    const limit = failure.end === "timed_out" ? ` of ${this.#timeoutMs / 1000} s` : "";
    const where = node === undefined ? "" : ` at ${node}`;
    return new FieldloopError(
      codes[failure.end],
      `${isOpening ? "Open" : "Run"} model in a trial process: ${failure.message}${limit}${where}`,
      { cause: failure },
    );
  }
}
