import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { SeededJob, SeededResults } from "./seeded-jobs.js";

const WORKERS_MAX = 16;

/** Runs seeded jobs on all cores; results in the order of the jobs, the same however many cores there are. */
export async function runJobs<Kind extends SeededJob["kind"]>(
  jobs: readonly Extract<SeededJob, { kind: Kind }>[],
): Promise<SeededResults[Kind][]> {
  const results: SeededResults[Kind][] = [];
  let next = 0;
  const work = (worker: Worker): Promise<void> =>
    new Promise((resolve, reject) => {
      let at = -1;
      const give = (): void => {
        at = next++;
        if (at < jobs.length) worker.postMessage(jobs[at]);
        else resolve();
      };
      worker.on("message", (result: SeededResults[Kind]) => {
        results[at] = result;
        give();
      });
      worker.once("error", reject);
      give();
    });
  const count = Math.min(availableParallelism(), WORKERS_MAX, jobs.length);
  const workers = Array.from(
    { length: count },
    () => new Worker(new URL("./seeded-worker.js", import.meta.url)),
  );
  try {
    await Promise.all(workers.map(work));
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  return results;
}
