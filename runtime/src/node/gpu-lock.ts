import { setTimeout as delay } from "node:timers/promises";
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";

const KEY = "fieldloop.gpu-lock";
/** Another thread's run is waited for by looking again; within one thread turns are taken in order, without this. */
const LOOK_AGAIN_MS = 1;

let cell: Int32Array<SharedArrayBuffer> | undefined;
let queue: Promise<unknown> = Promise.resolve();

/**
 * Makes the process's lock known to the threads that start from now on. The main thread calls it before it starts a
 * thread that may open a session; calling it again changes nothing.
 */
export function shareGpuLock(): void {
  theCell();
}

/**
 * Runs work on the GPU alone, over all threads of the process: concurrent WebGPU runs of one process crash ONNX Runtime
 * (microsoft/onnxruntime#32561).
 */
export function withGpuLock<Value>(work: () => Promise<Value>): Promise<Value> {
  const turn = queue.then(async () => {
    const lock = theCell();
    while (Atomics.compareExchange(lock, 0, 0, 1) !== 0) await delay(LOOK_AGAIN_MS);
    try {
      return await work();
    } finally {
      Atomics.store(lock, 0, 0);
    }
  });
  queue = turn.catch(() => undefined);
  return turn;
}

function theCell(): Int32Array<SharedArrayBuffer> {
  if (cell !== undefined) return cell;
  const shared = getEnvironmentData(KEY);
  const buffer = shared instanceof SharedArrayBuffer ? shared : new SharedArrayBuffer(4);
  if (isMainThread && buffer !== shared) setEnvironmentData(KEY, buffer);
  cell = new Int32Array(buffer);
  return cell;
}
