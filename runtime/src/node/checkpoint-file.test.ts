import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readCheckpointFile, writeCheckpointFile } from "./checkpoint-file.js";

it("a checkpoint file is replaced whole and leaves nothing beside it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-checkpoint-"));
  try {
    const path = join(folder, "run.checkpoint");
    expect(await readCheckpointFile(path)).toBeUndefined();
    await writeCheckpointFile(path, Uint8Array.of(1, 2, 3));
    await writeCheckpointFile(path, Uint8Array.of(4));
    expect([...(await readCheckpointFile(path))!]).toEqual([4]);
    expect(await readdir(folder)).toEqual(["run.checkpoint"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
