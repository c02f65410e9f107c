import type { Tensor } from "../backend.js";
import { exposeTensors } from "./calibrate.js";
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
  const open = (bytes: Uint8Array, names: string[], graphOptimization: "all" | "basic") =>
    options.backend.openSession(exposeTensors(bytes, names), {
      threadCount: options.threadCount ?? 1,
      executionProvider: "cpu",
      graphOptimization,
    });
  const referenceNames = pairs.map((pair) => pair.reference);
  const testNames = pairs.map((pair) => pair.test);
  const sums = new Map(pairs.map((pair) => [pair.reference, new PairSums()]));
  const reference = await open(referenceBytes, referenceNames, "all");
  try {
    const test = await open(testBytes, testNames, form === "fused" ? "all" : "basic");
    try {
      for (const feeds of inputs) {
        options.signal?.throwIfAborted();
        const a = await reference.run(feeds, referenceNames);
        const b = await test.run(feeds, testNames);
        for (const pair of pairs) {
          if (a[pair.reference]!.type !== "float32") continue;
          sums.get(pair.reference)!.add(a[pair.reference]!, b[pair.test]!);
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
