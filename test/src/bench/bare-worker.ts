import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import type { Tensor } from "@fieldloop/runtime";
import { DEFAULT_SPIN_DURATION_US, openBareRunner } from "@fieldloop/runtime/node";

/** What the thread runs, on tensors made once. */
export interface BareModel {
  readonly path: string;
  readonly threadCount: number;
  readonly executionProvider: string;
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly fetches: readonly string[];
}

export function openBare({ path, threadCount, executionProvider, feeds, fetches }: BareModel) {
  const options = { threadCount, executionProvider, spinDurationUs: DEFAULT_SPIN_DURATION_US };
  return openBareRunner(path, options, feeds, fetches);
}

/**
 * ONNX Runtime in a thread of its own and nothing else: a number goes there, so many runs are made, a number comes back. No frame travels, no
 * result is read: less than this no runtime needs that keeps runs away from the thread of its sources.
 */
export class BareWorker {
  readonly #worker: Worker;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  static async start(model: BareModel): Promise<BareWorker> {
    const worker = new Worker(new URL(import.meta.url), { workerData: model });
    const started = new BareWorker(worker);
    await started.run(1);
    return started;
  }

  run(count: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#worker.once("message", () => {
        this.#worker.off("error", reject);
        resolve();
      });
      this.#worker.once("error", reject);
      this.#worker.postMessage(count);
    });
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#worker.postMessage(0);
    await ended;
  }
}

async function serve(port: NonNullable<typeof parentPort>): Promise<void> {
  const bare = await openBare(workerData as BareModel);
  port.on("message", (count: number) => {
    void (async () => {
      for (let run = 0; run < count; run++) await bare.run();
      if (count > 0) port.postMessage(count);
      else {
        await bare.release();
        port.close();
      }
    })();
  });
}

if (!isMainThread && parentPort) await serve(parentPort);
