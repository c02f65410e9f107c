import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { shareGpuLock, withGpuLock } from "./gpu-lock.js";

/** Enters `rounds` times and counts how often it was not alone. Cells: who is inside, clashes, threads that ended. */
const CONTENDER = `
  const { workerData } = require("node:worker_threads");
  const cells = new Int32Array(workerData.buffer);
  import(workerData.module).then(async ({ withGpuLock }) => {
    const enter = () => withGpuLock(async () => {
      if (Atomics.add(cells, 0, 1) !== 0) Atomics.add(cells, 1, 1);
      await new Promise((resolve) => setImmediate(resolve));
      Atomics.sub(cells, 0, 1);
    });
    await Promise.all(Array.from({ length: workerData.rounds }, enter));
    Atomics.add(cells, 2, 1);
  });
`;

describe("the GPU lock", () => {
  it("lets one in at a time, over all threads of the process", async () => {
    shareGpuLock();
    const cells = new Int32Array(new SharedArrayBuffer(12));
    const module = new URL("./gpu-lock.js", import.meta.url).href;
    const workers = Array.from(
      { length: 3 },
      () =>
        new Worker(CONTENDER, {
          eval: true,
          execArgv: [],
          workerData: { buffer: cells.buffer, module, rounds: 20 },
        }),
    );
    const ended = workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
    for (let round = 0; round < 20; round++) {
      await withGpuLock(async () => {
        if (Atomics.add(cells, 0, 1) !== 0) Atomics.add(cells, 1, 1);
        await new Promise((resolve) => setImmediate(resolve));
        Atomics.sub(cells, 0, 1);
      });
    }
    await Promise.all(ended);
    expect([...cells]).toEqual([0, 0, 3]);
  });

  it("is free again after a failure", async () => {
    await expect(withGpuLock(() => Promise.reject(new Error("lost device")))).rejects.toThrow("lost device");
    expect(await withGpuLock(() => Promise.resolve(7))).toBe(7);
  });
});
