import { readFile, writeFile } from "node:fs/promises";
import { toFieldloopError } from "@fieldloop/protocol";
import { makeDeltaOf } from "@fieldloop/runtime/delta";
import type { DeltaAnswer, DeltaJob } from "./child.js";

/**
 * Entry of the process that makes one delta and ends: minutes of work on files of any kind, which must not hold up the server or take
 * its memory. It dies with its parent.
 */
async function run({ basePath, targetPath, deltaPath, bytesMax }: DeltaJob): Promise<DeltaAnswer> {
  try {
    const [base, target] = [await readFile(basePath), await readFile(targetPath)];
    const delta = makeDeltaOf(new Uint8Array(base), new Uint8Array(target), { bytesMax });
    if (!delta) return { kind: "none" };
    await writeFile(deltaPath, delta);
    return { kind: "made", bytes: delta.length };
  } catch (error) {
    const { code, message } = toFieldloopError(error);
    return { kind: "failed", code, message };
  }
}

process.once("message", (job: DeltaJob) => {
  void run(job).then((answer) => process.send?.(answer, () => process.disconnect()));
});
process.on("disconnect", () => process.exit());
