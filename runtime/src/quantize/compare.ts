import type { Tensor } from "../backend.js";
import { groupBySize, GroupedSession, inferredBytes, inferTypes } from "./groups.js";
import { QUANTIZE_LIMITS } from "./limits.js";
import type { Feeds, Fidelity, QuantizeOptions } from "./types.js";

/** Sums over pairs of tensors from which the fidelity follows. */
class PairSums {
  dot = 0;
  reference = 0;
  test = 0;
  error = 0;
  rows = 0;
  agreeing = 0;

  add(reference: Tensor, test: Tensor): void {
    const a = reference.data as Float32Array;
    const b = test.data as Float32Array;
    for (let index = 0; index < a.length; index++) {
      const x = a[index]!;
      const y = b[index]!;
      this.dot += x * y;
      this.reference += x * x;
      this.test += y * y;
      this.error += (x - y) * (x - y);
    }
    const classCount = reference.dims.length === 2 ? reference.dims[1]! : 0;
    if (classCount < 2) return;
    for (let start = 0; start < a.length; start += classCount) {
      this.rows++;
      if (argmax(a, start, classCount) === argmax(b, start, classCount)) this.agreeing++;
    }
  }

  fidelity(): Fidelity {
    const norm = Math.sqrt(this.reference * this.test);
    // Two zero tensors agree; a zero one and another do not.
    const cosine = norm > 0 ? this.dot / norm : Number(this.reference === this.test);
    const sqnrDb =
      this.error === 0 ? 200 : Math.min(200, 10 * Math.log10(Math.max(this.reference, 1e-30) / this.error));
    return { cosine, sqnrDb };
  }
}

/** A float tensor of the reference model and the name of its counterpart in the quantized one. */
export interface TensorPair {
  readonly reference: string;
  readonly test: string;
}

export interface Comparison extends Fidelity {
  readonly topOneAgreement?: number;
}

/**
 * Runs both models on the same inputs and compares the paired float32 tensors over all of them. Tensors inside the
 * quantized model can only be seen `unfused`, which rounds at the same places as integer kernels; its outputs are to be
 * compared `fused`, as it will run.
 */
export async function compareModels(
  referenceBytes: Uint8Array,
  testBytes: Uint8Array,
  pairs: readonly TensorPair[],
  inputs: readonly Feeds[],
  form: "fused" | "unfused",
  options: Pick<QuantizeOptions, "backend" | "threadCount" | "signal">,
): Promise<Map<string, Comparison>> {
  const open = (graphOptimization: "all" | "basic") => (bytes: Uint8Array) =>
    options.backend.openSession(bytes, {
      threadCount: options.threadCount ?? 1,
      executionProvider: "cpu",
      graphOptimization,
    });
  const testNames = new Map(pairs.map((pair) => [pair.reference, pair.test]));
  const sums = new Map(pairs.map((pair) => [pair.reference, new PairSums()]));
  const types = await inferTypes(options.backend, referenceBytes);
  const groups = groupBySize(
    pairs.map((pair) => pair.reference),
    (name) => inferredBytes(types.get(name)),
    // Both models' tensors are held.
    QUANTIZE_LIMITS.activationBytesMax / 2,
  );
  const compared = groups.length > 1 ? inputs.slice(0, QUANTIZE_LIMITS.comparedBatchesGrouped) : inputs;
  const testGroups = groups.map((names) => names.map((name) => testNames.get(name)!));
  const reference = await GroupedSession.open(referenceBytes, groups, open("all"));
  try {
    const test = await GroupedSession.open(testBytes, testGroups, open(form === "fused" ? "all" : "basic"));
    try {
      for (const feeds of compared) {
        options.signal?.throwIfAborted();
        for (const [index, names] of groups.entries()) {
          const a = await reference.run(index, feeds);
          const b = await test.run(index, feeds);
          for (const name of names) {
            if (a[name]!.type === "float32") sums.get(name)!.add(a[name]!, b[testNames.get(name)!]!);
          }
        }
      }
    } finally {
      await test.release();
    }
  } finally {
    await reference.release();
  }
  return new Map(
    [...sums].map(([name, sum]) => [
      name,
      { ...sum.fidelity(), ...(sum.rows > 0 ? { topOneAgreement: sum.agreeing / sum.rows } : {}) },
    ]),
  );
}

function argmax(values: Float32Array, start: number, length: number): number {
  let best = 0;
  for (let index = 1; index < length; index++) {
    if (values[start + index]! > values[start + best]!) best = index;
  }
  return best;
}
