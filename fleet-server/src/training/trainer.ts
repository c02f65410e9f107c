import { toFieldloopError } from "@fieldloop/protocol";
import { runEvaluateJob } from "./evaluate-job.js";
import type { Job, ParentMessage, Reporter, TrainerMessage } from "./job.js";
import { runTrainJob } from "./train-job.js";

/**
 * Entry of the trainer process: one job, then it ends. A process of its own, because a native library that crashes or hangs in
 * training must not take the fleet's server with it. It dies with its parent: a server that restarts starts the run again.
 */
const cancel = new AbortController();

function send(message: TrainerMessage): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected || !process.send) resolve();
    else process.send(message, () => resolve());
  });
}

const reporter: Reporter = {
  progress: (message) => void send({ kind: "progress", ...message, rssBytes: process.memoryUsage.rss() }),
};

async function run(job: Job): Promise<TrainerMessage> {
  try {
    const evaluation =
      job.kind === "train"
        ? await runTrainJob(job, reporter, cancel.signal)
        : await runEvaluateJob(job, reporter);
    return { kind: "done", evaluation };
  } catch (error) {
    const { code, message } = toFieldloopError(error);
    return { kind: "failed", code, message };
  }
}

process.on("message", (message: ParentMessage) => {
  if (message.kind === "cancel") cancel.abort();
  else
    void run(message.job)
      .then(send)
      .then(() => process.disconnect());
});
// The parent is gone: nobody waits for the result.
process.on("disconnect", () => process.exit());
