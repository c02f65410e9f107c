import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Backend } from "../backend.js";
import { unfoldGrown } from "../onnx/unfold.js";
import type { FoldModel } from "../quantize/types.js";

/**
 * Opens a model once and returns the graph that the backend optimized it to. `basic` keeps standard operators, so the
 * result is still a portable model; `extended` shows the fused kernels of this machine's provider.
 */
export const foldModel: FoldModel = async (backend, bytes, level, config) => {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-fold-"));
  try {
    const optimizedModelPath = join(folder, "optimized.onnx");
    await openAndRelease(backend, bytes, level, optimizedModelPath, config);
    return await readFolded(optimizedModelPath, bytes, level);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

/** What the backend saved of `original`; a portable model without the constants that would make it much larger ({@link unfoldGrown}). */
export async function readFolded(
  path: string,
  original: Uint8Array,
  level: "basic" | "extended",
): Promise<Uint8Array> {
  const folded = new Uint8Array(await readFile(path));
  return level === "basic" ? unfoldGrown(original, folded) : folded;
}

async function openAndRelease(
  backend: Backend,
  bytes: Uint8Array,
  level: "basic" | "extended",
  optimizedModelPath: string,
  config: Readonly<Record<string, string>> | undefined,
): Promise<void> {
  const session = await backend.openSession(bytes, {
    threadCount: 1,
    executionProvider: "cpu",
    graphOptimization: level,
    optimizedModelPath,
    ...(config === undefined ? {} : { config }),
  });
  await session.release();
}
