import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { SCRATCH } from "./scratch-process.js";

/** Kills its own process when memory goes over the limit or the parent is gone. */
const { rssBytesMax, parent } = workerData as { rssBytesMax: number; parent: number };

setInterval(() => {
  const isOrphan = process.ppid !== parent;
  if (process.memoryUsage.rss() <= rssBytesMax && !isOrphan) return;
  if (!isOrphan) writeSync(2, `\n${SCRATCH.memoryMark}\n`);
  process.kill(process.pid, "SIGKILL");
}, SCRATCH.memoryCheckMs);
