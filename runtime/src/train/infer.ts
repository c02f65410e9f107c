import type { Backend, Tensor } from "../backend.js";
import { sizeOf } from "./graph.js";
import { graphToBytes } from "./onnx-form.js";
import { loadForward, type FinalActivation, type ForwardGraph } from "./prepare.js";

export interface RunRowsOptions {
  readonly model: Uint8Array;
  readonly backend: Backend;
  /** [count, ...row]. */
  readonly inputs: Float32Array | Uint8Array;
  /** Rows in one run. */
  readonly batch?: number;
  /** Output to compute; the first one when absent. */
  readonly output?: string;
  /** Give the logits before a final activation of this kind. */
  readonly strip?: FinalActivation;
  readonly threadCount?: number;
  readonly executionProvider?: string;
}

/** One output of every row, end to end. */
export interface RowOutputs {
  readonly outputs: Float32Array;
  /** Numbers per row. */
  readonly size: number;
}

/** Runs a float32 model over many rows in batches, whatever batch size its file declares. */
export async function runRows(options: RunRowsOptions): Promise<RowOutputs> {
  const { model, backend, inputs, batch = 64, output, strip = "none" } = options;
  const forward = loadForward(model, { batch, output, strip });
  return runForward(forward, inputs, backend, {
    threadCount: options.threadCount ?? 1,
    executionProvider: options.executionProvider ?? "cpu",
  });
}

export async function runForward(
  forward: ForwardGraph,
  inputs: Float32Array | Uint8Array,
  backend: Backend,
  options: { readonly threadCount: number; readonly executionProvider: string },
): Promise<RowOutputs> {
  const { graph, input, output } = forward;
  const session = await backend.openSession(graphToBytes({ ...graph, outputs: [output] }), {
    threadCount: options.threadCount,
    executionProvider: options.executionProvider,
  });
  try {
    const [batch = 1, ...rest] = input.dims;
    const rowSize = sizeOf(rest);
    const count = inputs.length / rowSize;
    const parts: Float32Array[] = [];
    for (let row = 0; row < count; row += batch) {
      const data = new Float32Array(batch * rowSize);
      data.set(inputs.subarray(row * rowSize, Math.min(count, row + batch) * rowSize));
      const feed: Tensor = { type: "float32", dims: input.dims, data };
      const results = await session.run({ [input.name]: feed }, [output]);
      parts.push(results[output]!.data as Float32Array);
    }
    const size = (parts[0]?.length ?? 0) / batch;
    const outputs = new Float32Array(count * size);
    parts.forEach((part, k) =>
      outputs.set(part.subarray(0, Math.min(batch, count - k * batch) * size), k * batch * size),
    );
    return { outputs, size };
  } finally {
    await session.release();
  }
}

/** Index of the largest of each `size` numbers. */
export function argMaxRows(outputs: Float32Array, size: number): Int32Array {
  return Int32Array.from({ length: outputs.length / size }, (_, row) => {
    let best = 0;
    for (let k = 1; k < size; k++) if (outputs[row * size + k]! > outputs[row * size + best]!) best = k;
    return best;
  });
}

/** Share of rows whose largest output is their label. */
export function accuracyOf(outputs: Float32Array, labels: ArrayLike<number>): number {
  const predicted = argMaxRows(outputs, outputs.length / labels.length);
  let right = 0;
  for (let row = 0; row < labels.length; row++) if (predicted[row] === labels[row]) right++;
  return right / labels.length;
}
