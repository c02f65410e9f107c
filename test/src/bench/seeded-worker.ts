import { parentPort } from "node:worker_threads";
import { runSeeded, type SeededJob } from "./seeded-jobs.js";

parentPort!.on("message", (job: SeededJob) => parentPort!.postMessage(runSeeded(job)));
