import { Worker } from "node:worker_threads";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { Frame } from "../input/frame.js";
import type { BatchItem, Prediction } from "../predict.js";
import { FrameMemory } from "./frame-memory.js";
import { shareGpuLock } from "./gpu-lock.js";
import type { GoldenReport } from "./golden.js";
import type { ModelSlots } from "./model-slots.js";
import { forbidTelemetry } from "./no-telemetry.js";
import {
  fromWireBatchItem,
  fromWireFailure,
  type LoadedInfo,
  type WireBatchItem,
  type WorkerModelOptions,
  type WorkerReply,
  type WorkerRequest,
} from "./worker-messages.js";
import { ownedBuffers } from "./worker-transfer.js";

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Memory that moves with a request. */
interface Moves {
  /** For good. */
  readonly owned: ArrayBuffer[];
  /** Until it is answered. */
  readonly lent: ArrayBuffer[];
}

const NOTHING_MOVES: Moves = { owned: [], lent: [] };

export interface PredictOptions {
  /** True copies the frame to the worker. By default its memory moves there, and the caller's view becomes empty. */
  readonly keep?: boolean;
  /** Name of the source: each stream has its own instability, window context and recurrent state. `main` by default. */
  readonly stream?: string;
}

export interface ModelWorkerOptions {
  /**
   * False keeps the models in the caller's thread: frames and results are not copied and no thread has to wake up, but
   * loads and runs block the caller. For models whose runs take less than the two hops between threads are worth.
   */
  readonly thread?: boolean;
}

/**
 * Models in a worker thread, so that native runs never block the caller's event loop. Requests are answered one after
 * the other in the order of the calls, over all slots: a candidate loads and is checked in a slot of its own beside the
 * active one, and the host swaps between two frames by naming the other slot in its next `predict`.
 */
export class ModelWorker {
  readonly #threaded: boolean;
  #worker: Worker | undefined;
  #here: ModelSlots | undefined;
  #exited: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;
  #nextId = 1;
  readonly #waiting = new Map<number, Waiting>();
  readonly #memory = new FrameMemory();

  constructor(options: ModelWorkerOptions = {}) {
    this.#threaded = options.thread ?? true;
  }

  /** Starts the thread; cheap, the library loads with the first model. */
  async start(): Promise<void> {
    if (this.#worker !== undefined || this.#here !== undefined) {
      throw new FieldloopError("conflict", "Start worker: it runs already");
    }
    if (!this.#threaded) {
      const { ModelSlots } = await import("./model-slots.js");
      this.#here = new ModelSlots();
      this.#stopping = undefined;
      return;
    }
    shareGpuLock();
    forbidTelemetry();
    // The process's own flags are not the thread's: some of them (--eval, --input-type) would keep it from starting.
    const worker = new Worker(new URL("./worker-entry.js", import.meta.url), { execArgv: [] });
    this.#worker = worker;
    this.#stopping = undefined;
    worker.on("message", (reply: WorkerReply) => this.#settle(reply));
    this.#exited = new Promise((resolve) => {
      worker.on("error", (cause) => this.#failAll("host_crashed", `Inference worker: ${String(cause)}`));
      worker.once("exit", (code) => {
        this.#worker = undefined;
        this.#failAll("host_crashed", `Inference worker: it ended with code ${code}`);
        resolve();
      });
    });
    await new Promise<void>((resolve, reject) => {
      worker.once("online", resolve);
      worker.once("error", reject);
    });
  }

  /** Opens and warms a package into a slot; what was in the slot is released afterwards, and stays if this fails. */
  async load(slot: string, packageDir: string, options: WorkerModelOptions): Promise<LoadedInfo> {
    return (await this.#ask({ kind: "load", slot, packageDir, options })) as LoadedInfo;
  }

  /** The frame's memory moves to the worker unless `keep` is set or it is a part of a larger buffer. */
  async predict(slot: string, frame: Frame, options: PredictOptions = {}): Promise<Prediction> {
    const { frames, ...moves } = this.#moving([frame], options);
    const request = { kind: "predict", slot, frame: frames[0]!, ...streamOf(options) } as const;
    return (await this.#ask(request, moves)) as Prediction;
  }

  /** Several frames of one stream, in one run where the graph allows it; one item a frame, in their order. */
  async predictBatch(
    slot: string,
    frames: readonly Frame[],
    options: PredictOptions = {},
  ): Promise<BatchItem[]> {
    const { frames: moving, ...moves } = this.#moving(frames, options);
    const request = { kind: "predictBatch", slot, frames: moving, ...streamOf(options) } as const;
    return ((await this.#ask(request, moves)) as WireBatchItem[]).map(fromWireBatchItem);
  }

  /** Runs the graph on tensors as they are; they are copied. */
  async runTensors(
    slot: string,
    feeds: Record<string, Tensor>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    const request: WorkerRequest = {
      kind: "run",
      slot,
      feeds,
      ...(fetches === undefined ? {} : { fetches }),
    };
    return (await this.#ask(request)) as Record<string, Tensor>;
  }

  /** Makes a frame ready as the manifest says and runs the graph on it: outputs as they are. No stream has a part in it. */
  async runFrame(slot: string, frame: Frame, fetches?: readonly string[]): Promise<Record<string, Tensor>> {
    const request = { kind: "runFrame", slot, frame, ...(fetches === undefined ? {} : { fetches }) } as const;
    return (await this.#ask(request)) as Record<string, Tensor>;
  }

  async checkGolden(slot: string): Promise<GoldenReport> {
    return (await this.#ask({ kind: "checkGolden", slot })) as GoldenReport;
  }

  /** Forgets what a stream (all of the slot by default) carries: its next frame has nothing before it. */
  async resetStream(slot: string, stream?: string): Promise<void> {
    await this.#ask({ kind: "resetStream", slot, ...streamOf({ stream }) });
  }

  /** Releases the slot's model; an empty slot is no error. */
  async unload(slot: string): Promise<void> {
    await this.#ask({ kind: "unload", slot });
  }

  /** Finishes what was asked before, releases every session and ends the thread. Never cuts a run short. */
  stop(): Promise<void> {
    if (this.#worker === undefined && this.#here === undefined) return this.#exited;
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    // A worker that died on the way has stopped as well.
    await Promise.allSettled([this.#send({ kind: "stop" })]);
    this.#here = undefined;
    await this.#exited;
  }

  /** Frames as they go to the thread: kept ones as copies in memory that comes back, the others with their own. */
  #moving(
    frames: readonly Frame[],
    { keep = false }: PredictOptions,
  ): Moves & { readonly frames: readonly Frame[] } {
    if (this.#worker === undefined) return { frames, ...NOTHING_MOVES };
    if (!keep) return { frames, owned: ownedBuffers(frames), lent: [] };
    const { frames: copies, buffers } = this.#memory.lend(frames);
    return { frames: copies, owned: [], lent: buffers };
  }

  #ask(request: WorkerRequest, moves?: Moves): Promise<unknown> {
    if (this.#stopping !== undefined) return Promise.reject(notRunning(request));
    return this.#send(request, moves);
  }

  #send(request: WorkerRequest, { owned, lent }: Moves = NOTHING_MOVES): Promise<unknown> {
    if (this.#here !== undefined) {
      return this.#here.answer(request).catch((error: unknown) => {
        throw toFieldloopError(error);
      });
    }
    const worker = this.#worker;
    if (worker === undefined) return Promise.reject(notRunning(request));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ ...request, id, lent }, [...owned, ...lent]);
    });
  }

  #settle(reply: WorkerReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.ok) {
      this.#memory.takeBack(reply.returned);
      waiting?.resolve(reply.value);
    } else waiting?.reject(fromWireFailure(reply.error));
  }

  #failAll(code: "host_crashed", message: string): void {
    const failed = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of failed) reject(new FieldloopError(code, message));
  }
}

function notRunning(request: WorkerRequest): FieldloopError {
  return new FieldloopError("unavailable", `Ask inference worker to ${request.kind}: it is not running`);
}

function streamOf({ stream }: { readonly stream?: string | undefined }): { stream?: string } {
  return stream === undefined ? {} : { stream };
}
