import { readFile, stat } from "node:fs/promises";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { applyDeltaTo, readDeltaHeader } from "@fieldloop/runtime/delta";
import type { RebuildEnd, RebuildJob } from "../control/delta-process.js";
import { AGENT_LIMITS } from "../limits.js";

/** Entry of the process that rebuilds one file from its base and a delta, onto standard output, and ends. */
async function rebuild({ basePath, deltaPath, target }: RebuildJob): Promise<RebuildEnd> {
  try {
    const { size } = await stat(deltaPath);
    if (size > AGENT_LIMITS.deltaBytesMax) {
      throw new FieldloopError("delta_malformed", `Rebuild by delta: a delta of ${size} bytes`);
    }
    const delta = new Uint8Array(await readFile(deltaPath));
    const header = readDeltaHeader(delta);
    if (header.targetSha256 !== target.sha256 || header.targetBytes !== target.bytes) {
      throw new FieldloopError("delta_malformed", "Rebuild by delta: it makes another file");
    }
    await applyDeltaTo(basePath, delta, write);
    return { kind: "done" };
  } catch (error) {
    const { code, message } = toFieldloopError(error);
    return { kind: "failed", code, message };
  }
}

/** The chunk's memory is used again when this resolves: not before the pipe has taken it. */
function write(chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

process.once("message", (job: RebuildJob) => {
  void rebuild(job).then((end) => process.send?.(end, () => process.disconnect()));
});
process.on("disconnect", () => process.exit());
