import { Worker } from "node:worker_threads";
import { FieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { Frame } from "../input/frame.js";
import type { Prediction } from "../predict.js";
import type { GoldenReport } from "./golden.js";
import {
  fromWireFailure,
  type LoadedInfo,
  type WorkerModelOptions,
  type WorkerReply,
  type WorkerRequest,
} from "./worker-messages.js";

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface PredictOptions {
  /** True copies the frame to the worker. By default its memory moves there, and the caller's view becomes empty. */
  readonly keep?: boolean;
}

/**
 * Models in a worker thread, so that native runs never block the caller's event loop. Requests are answered one after
 * the other in the order of the calls, over all slots: a candidate loads and is checked in a slot of its own beside the
 * active one, and the host swaps between two frames by naming the other slot in its next `predict`. One worker a host.
 */
export class ModelWorker {
  #worker: Worker | undefined;
  #exited: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;
  #nextId = 1;
  readonly #waiting = new Map<number, Waiting>();

  /** Starts the thread; cheap, the library loads with the first model. */
  async start(): Promise<void> {
    if (this.#worker !== undefined) throw new FieldloopError("conflict", "Start worker: it runs already");
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
    const transfer = options.keep === true ? [] : ownedBuffers(frame);
    return (await this.#ask({ kind: "predict", slot, frame }, transfer)) as Prediction;
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

  async checkGolden(slot: string): Promise<GoldenReport> {
    return (await this.#ask({ kind: "checkGolden", slot })) as GoldenReport;
  }

  /** The next frame belongs to another stream: instability starts anew. */
  async resetStream(slot: string): Promise<void> {
    await this.#ask({ kind: "resetStream", slot });
  }

  /** Releases the slot's model; an empty slot is no error. */
  async unload(slot: string): Promise<void> {
    await this.#ask({ kind: "unload", slot });
  }

  /** Finishes what was asked before, releases every session and ends the thread. Never cuts a run short. */
  stop(): Promise<void> {
    if (this.#worker === undefined) return this.#exited;
    this.#stopping ??= this.#end();
    return this.#stopping;
  }

  async #end(): Promise<void> {
    // A worker that died on the way has stopped as well.
    await Promise.allSettled([this.#ask({ kind: "stop" })]);
    await this.#exited;
  }

  #ask(request: WorkerRequest, transfer: ArrayBuffer[] = []): Promise<unknown> {
    const worker = this.#worker;
    if (worker === undefined || this.#stopping !== undefined) {
      return Promise.reject(
        new FieldloopError("unavailable", `Ask inference worker to ${request.kind}: it is not running`),
      );
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ ...request, id }, transfer);
    });
  }

  #settle(reply: WorkerReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.ok) waiting?.resolve(reply.value);
    else waiting?.reject(fromWireFailure(reply.error));
  }

  #failAll(code: "host_crashed", message: string): void {
    const failed = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of failed) reject(new FieldloopError(code, message));
  }
}

/** Buffers that a frame fills wholly: moving one that others share would empty their views too. */
function ownedBuffers(frame: Frame): ArrayBuffer[] {
  const views = viewsOf(frame);
  const owned = views.filter((view) => view.byteLength === view.buffer.byteLength);
  return [...new Set(owned.map((view) => view.buffer as ArrayBuffer))].filter(
    (buffer) => buffer instanceof ArrayBuffer,
  );
}

function viewsOf(frame: Frame): ArrayBufferView[] {
  switch (frame.kind) {
    case "encoded":
      return [frame.bytes];
    case "pixels":
      return [frame.data];
    case "window":
      return [frame.samples];
    case "row":
      return [];
    case "tensors":
      return Object.values(frame.feeds)
        .map((tensor) => tensor.data)
        .filter((data) => ArrayBuffer.isView(data));
  }
}
