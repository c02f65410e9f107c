import { isMainThread, parentPort, workerData } from "node:worker_threads";

/** Frames of two cameras: how many a second each, for how long, and how far the second is behind at first. */
export interface Shooting {
  readonly rates: readonly [number, number];
  readonly forMs: number;
  readonly behindMs: number;
}

/** A frame that is due now. */
export interface Shot {
  readonly lane: 0 | 1;
  /** Milliseconds since the epoch. */
  readonly dueMs: number;
}

/** Says when a frame is due, more exactly than timers of a thread that runs models do; nothing more comes after `null`. */
function shoot({ rates, forMs, behindMs }: Shooting, port: NonNullable<typeof parentPort>): void {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  const now = (): number => performance.timeOrigin + performance.now();
  const begin = now();
  const next = [begin, begin + behindMs];
  while (true) {
    const lane = next[0]! <= next[1]! ? 0 : 1;
    const dueMs = next[lane]!;
    if (dueMs - begin > forMs) break;
    const waitMs = dueMs - now();
    if (waitMs > 0) Atomics.wait(sleeper, 0, 0, waitMs);
    port.postMessage({ lane, dueMs } satisfies Shot);
    next[lane]! += 1_000 / rates[lane];
  }
  port.postMessage(null);
}

if (!isMainThread && parentPort) shoot(workerData as Shooting, parentPort);
