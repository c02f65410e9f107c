import type { Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import {
  argmax,
  binaryEntropy,
  energyOf,
  normalizedEntropy,
  sigmoid,
  softmax,
  topMargin,
} from "./distribution.js";
import { NO_LABEL, type ClassificationResult } from "./result.js";
import { outputInvalid, realValues, requireProbability } from "./values.js";

export type ClassificationHead = Extract<Head, { kind: "classification" }>;

/**
 * One label of several (softmax), or several at once (sigmoid): then `class` is the likeliest that reaches the head's threshold, or
 * -1 with the belief that none is set, 1 minus the highest probability; margin and entropy are those of the most doubtful label.
 * @throws FieldloopError `model_output_invalid` where the output's length is not that of the labels, it holds NaN, or what is said to be
 * probabilities is none
 */
export function readClassification(head: ClassificationHead, output: Tensor): ClassificationResult {
  const values = realValues(output, head.quantization);
  if (values.length !== head.labels.length) {
    throw outputInvalid(
      head,
      `output "${head.output}" has ${values.length} values, wanted one for each of ${head.labels.length} labels`,
    );
  }
  const fromLogits = head.values === "logits";
  const probabilities = fromLogits ? activate(head, values) : values;
  const best = argmax(probabilities);
  const highest = best < 0 ? Number.NaN : probabilities[best]!;
  if (!Number.isFinite(highest) || probabilities.some(Number.isNaN)) {
    throw outputInvalid(head, `output "${head.output}" holds values that are not finite`);
  }
  if (!fromLogits) for (const p of probabilities) requireProbability(head, head.output, p);
  const isSet = !(head.activation === "sigmoid" && head.threshold !== undefined && highest < head.threshold);
  return {
    kind: "classification",
    name: head.name,
    class: isSet ? best : -1,
    label: isSet ? head.labels[best]! : NO_LABEL,
    confidence: Math.min(Math.max(isSet ? highest : 1 - highest, 0), 1),
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
