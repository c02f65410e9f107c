import { Worker } from "node:worker_threads";
import type { ScratchMessage } from "./scratch-process.js";

/**
 * The child's side of a `ScratchProcess`: answers requests one after the other until the parent goes. A thread of its own
 * watches memory and the parent, because native code blocks the main one.
 */
export function serveScratch(answer: (request: unknown, phase: (name: string) => void) => Promise<unknown>) {
  const rssBytesMax = Number(process.argv[2]);
  const watch = new Worker(new URL("./scratch-watch.js", import.meta.url), {
    workerData: { rssBytesMax, parent: process.ppid },
    execArgv: [],
  });
  watch.unref();
  const send = (message: ScratchMessage) => process.send?.(message);
  let tail = Promise.resolve();
  process.on("message", (request: unknown) => {
    tail = tail.then(async () => {
      send({ answer: await answer(request, (name) => send({ phase: name })) });
    });
  });
  send({ ready: true });
  process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
}
