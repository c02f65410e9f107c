import { readFile } from "node:fs/promises";
import { AGENT_LIMITS, type Rebuild, type UpdaterOptions } from "@fieldloop/device-agent";
import { applyDeltaTo } from "@fieldloop/runtime/delta";

/** As the agent's own process does it, in this one: hundreds of updates would wait for as many processes. */
const rebuildHere: Rebuild = async ({ basePath, deltaPath }, signal, sink) => {
  await applyDeltaTo(basePath, new Uint8Array(await readFile(deltaPath)), sink, { signal });
};

/** An updater that takes deltas of the smallest files. */
export const BY_DELTA: Partial<UpdaterOptions> = {
  rebuild: rebuildHere,
  times: {
    download: { attemptsMax: 4, retryMinMs: 1, retryMaxMs: 4, stallMs: 2_000 },
    delta: { fileBytesMin: AGENT_LIMITS.deltaFileBytesMin / 64, waitMs: 100 },
    trustRetryMinMs: 1,
    storageRetryMinMs: 1,
    windowPollMs: 1,
    updaterRetryMs: 1,
  },
};
