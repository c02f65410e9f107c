import {
  type Backend,
  normalizedEntropy,
  noveltyOf,
  type Baseline,
  predictionWorth,
  softmax,
  topMargin,
  argmax,
} from "@fieldloop/runtime";
import { partClasses, partsFrameSize } from "@fieldloop/runtime/simulate";
import { frameBytes, type PartsFrames, toRows } from "./data.js";
import { embeddingLength } from "./net.js";

const batch = 50;

/** What the network says to each frame. */
export interface PartsOutputs {
  /** [frames, classes]. */
  readonly logits: Float32Array;
  /** [frames, embedding length]. */
  readonly embeddings: Float32Array;
}

/** Runs a variant over frames, one thread. */
export async function runParts(
  model: Uint8Array,
  backend: Backend,
  frames: PartsFrames,
): Promise<PartsOutputs> {
  const session = await backend.openSession(model, { threadCount: 1, executionProvider: "cpu" });
  const total = frames.labels.length;
  const logits = new Float32Array(total * partClasses.length);
  const embeddings = new Float32Array(total * embeddingLength);
  try {
    for (let at = 0; at < total; at += batch) {
      const pixels = frames.pixels.subarray(at * frameBytes, Math.min(total, at + batch) * frameBytes);
      const dims = [pixels.length / frameBytes, 3, partsFrameSize, partsFrameSize];
      const outputs = await session.run({ image: { type: "float32", dims, data: toRows(pixels) } });
      logits.set(outputs["logits"].data as Float32Array, at * partClasses.length);
      embeddings.set(outputs["embedding"].data as Float32Array, at * embeddingLength);
    }
  } finally {
    await session.release();
  }
  return { logits, embeddings };
}

/** Accuracy over all frames and per class, 0..1; a class without frames is NaN. */
export interface Accuracy {
  readonly overall: number;
  readonly perClass: Readonly<Record<string, number>>;
}

export function accuracyOf(logits: Float32Array, labels: Uint8Array): Accuracy {
  const classes = partClasses.length;
  const right = new Float64Array(classes);
  const seen = new Float64Array(classes);
  for (let row = 0; row < labels.length; row++) {
    seen[labels[row]]++;
    if (argmax(rowOf(logits, row, classes)) === labels[row]) right[labels[row]]++;
  }
  return {
    overall: sum(right) / labels.length,
    perClass: Object.fromEntries(partClasses.map((label, index) => [label, right[index] / seen[index]])),
  };
}

export function rowOf(values: Float32Array, row: number, size: number): Float32Array {
  return values.subarray(row * size, (row + 1) * size);
}

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

/** The numbers by which a device orders its frames. */
export interface Doubt {
  readonly confidence: number;
  readonly margin: number;
  readonly entropy: number;
  readonly novelty: number;
  readonly worth: number;
}

/** Confidence, margin, entropy, novelty and worth of every frame, as the device computes them. */
export function doubtsOf(outputs: PartsOutputs, temperature: number, baseline: Baseline): Doubt[] {
  const classes = partClasses.length;
  return Array.from({ length: outputs.logits.length / classes }, (_, row) => {
    const p = softmax(rowOf(outputs.logits, row, classes), temperature);
    const margin = topMargin(p);
    const entropy = normalizedEntropy(p);
    const novelty = baseline.novelty
      ? noveltyOf(rowOf(outputs.embeddings, row, embeddingLength), baseline.novelty)
      : 1;
    const confidence = Math.max(...p);
    const worth = predictionWorth({ margin, entropy, novelty }, confidence, baseline);
    return { confidence, margin, entropy, novelty, worth };
  });
}

/** Share of real errors among the `share` of frames that a score puts first (smallest score first). */
export function errorPrecision(
  outputs: PartsOutputs,
  labels: Uint8Array,
  scores: readonly number[],
  share: number,
): number {
  const order = scores.map((_, row) => row).sort((a, b) => scores[a] - scores[b]);
  const chosen = order.slice(0, Math.max(1, Math.round(share * scores.length)));
  const wrong = chosen.filter(
    (row) => argmax(rowOf(outputs.logits, row, partClasses.length)) !== labels[row],
  );
  return wrong.length / chosen.length;
}
