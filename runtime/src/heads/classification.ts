import { FieldloopError, type Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { asFloat32 } from "../package/tensor-bytes.js";
import {
  argmax,
  binaryEntropy,
  energyOf,
  normalizedEntropy,
  sigmoid,
  softmax,
  topMargin,
} from "./distribution.js";
import type { ClassificationResult } from "./result.js";

export type ClassificationHead = Extract<Head, { kind: "classification" }>;

/**
 * One label of several (softmax), or several at once (sigmoid), then `class` is the likeliest and margin and entropy are
 * those of the most doubtful label.
 * @throws FieldloopError `model_output_invalid` where the output's length is not that of the labels, or it holds NaN
 */
export function readClassification(head: ClassificationHead, output: Tensor): ClassificationResult {
  const values = asFloat32(output);
  if (values.length !== head.labels.length) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": output "${head.output}" has ${values.length} values, wanted one for each of ${head.labels.length} labels`,
    );
  }
  const fromLogits = head.values === "logits";
  const probabilities = fromLogits ? activate(head, values) : values;
  const best = argmax(probabilities);
  if (best < 0 || !Number.isFinite(probabilities[best]!)) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": output "${head.output}" holds values that are not finite`,
    );
  }
  return {
    kind: "classification",
    name: head.name,
    class: best,
    label: head.labels[best]!,
    confidence: Math.min(probabilities[best]!, 1),
    ...doubt(head, probabilities),
    probabilities,
    ...(fromLogits ? { logits: values, energy: energyOf(values, head.temperature) } : {}),
  };
}

function activate(head: ClassificationHead, logits: Float32Array): Float32Array {
  return head.activation === "softmax"
    ? softmax(logits, head.temperature)
    : sigmoid(logits, head.temperature);
}

function doubt(head: ClassificationHead, probabilities: Float32Array): { margin: number; entropy: number } {
  if (head.activation === "softmax") {
    return { margin: topMargin(probabilities), entropy: normalizedEntropy(probabilities) };
  }
  let margin = 1;
  let entropy = 0;
  for (const p of probabilities) {
    margin = Math.min(margin, Math.abs(2 * p - 1));
    entropy = Math.max(entropy, binaryEntropy(p));
  }
  return { margin, entropy };
}
