import { FieldloopError, type Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { asFloat32 } from "../package/tensor-bytes.js";
import { binaryEntropy } from "./distribution.js";
import type { AnomalyResult } from "./result.js";

export type AnomalyHead = Extract<Head, { kind: "anomaly" }>;

/** How steeply belief turns at the threshold: 1.5 times the threshold gives 0.84, twice gives 0.94. */
export const ANOMALY_STEEPNESS = 4;

/**
 * Belief that a window is anomalous, from its score r = error / threshold: r⁴ / (1 + r⁴), a logistic of ln r with
 * steepness 4. It is 0.5 at the threshold, which the model's maker calibrates on validation data, and grows with r.
 */
export function anomalyProbability(score: number): number {
  if (score <= 0) return 0;
  return 1 / (1 + score ** -ANOMALY_STEEPNESS);
}

/**
 * Compares the input with its reconstruction; class 0 is normal, 1 anomalous. The confidence is that of the decision:
 * {@link anomalyProbability} or 1 minus it.
 * @throws FieldloopError `model_output_invalid` where the reconstruction has another length or is not finite
 */
export function readAnomaly(head: AnomalyHead, output: Tensor, input: Tensor): AnomalyResult {
  const reconstruction = asFloat32(output);
  const original = asFloat32(input);
  if (reconstruction.length !== original.length) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": output "${head.output}" has ${reconstruction.length} values, its input ${original.length}`,
    );
  }
  let sum = 0;
  for (let at = 0; at < original.length; at++) sum += (original[at]! - reconstruction[at]!) ** 2;
  const error = sum / Math.max(original.length, 1);
  if (!Number.isFinite(error)) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": output "${head.output}" holds values that are not finite`,
    );
  }
  const score = error / head.threshold;
  const p = anomalyProbability(score);
  const anomalous = score > 1;
  return {
    kind: "anomaly",
    name: head.name,
    class: anomalous ? 1 : 0,
    label: head.labels[anomalous ? 1 : 0],
    confidence: anomalous ? p : 1 - p,
    margin: Math.abs(2 * p - 1),
    entropy: binaryEntropy(p),
    error,
    score,
  };
}
