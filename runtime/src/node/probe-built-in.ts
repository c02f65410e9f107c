import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { backendFor } from "./backends.js";
import type { ProbeReply } from "./probe-messages.js";

const SIDE = 8;
/** A sum of 9 products: single precision in any order stays far below. */
const TOLERANCE = 1e-3;

/** A 3×3 convolution of ones over ones, without padding: every result is 9. */
function tinyConvolution(): Uint8Array {
  const graph = new GraphBuilder();
  const image = graph.input("x", "float32", [1, 1, SIDE, SIDE]);
  const kernel = graph.initializer(float32Tensor("kernel", [1, 1, 3, 3], new Float32Array(9).fill(1)));
  graph.node("Conv", [image, kernel], { kernel_shape: { ints: [3, 3] } }, ["y"]);
  graph.output("y", "float32", [1, 1, SIDE - 2, SIDE - 2]);
  return encodeModel(graph.build({ opset: 17 }));
}

/** Whether an execution provider computes at all: opens, runs and checks a small convolution in this process. */
export async function probeBuiltIn(executionProvider: string): Promise<ProbeReply> {
  const backend = await backendFor(executionProvider);
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-probe-"));
  try {
    const path = join(folder, "model.onnx");
    await writeFile(path, tinyConvolution());
    const session = await backend.openSession(path, { threadCount: 1, executionProvider });
    try {
      const x = {
        type: "float32",
        dims: [1, 1, SIDE, SIDE],
        data: new Float32Array(SIDE * SIDE).fill(1),
      } as const;
      const { y } = await session.run({ x });
      const values = y!.data as Float32Array;
      const correct = values.every((value) => Math.abs(value - 9) < TOLERANCE);
      const shares = (await session.providerShares?.().catch(() => undefined)) ?? null;
      return { works: true, correct, medianMs: null, shares };
    } finally {
      await session.release();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
