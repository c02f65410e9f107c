import { FieldloopError, type Affine, type Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { NoveltyReference } from "../profile/baseline.js";
import { noveltyOf } from "../profile/novelty.js";
import { binaryEntropy } from "./distribution.js";
import type { AnomalyResult } from "./result.js";
import { outputInvalid, realValues } from "./values.js";

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

/** What an anomaly is measured against; each method wants its own. */
export interface AnomalyReference {
  /** `reconstruction`: the model's input, and what its integers stand for. */
  readonly input?: Tensor;
  readonly inputQuantization?: Affine;
  /** `embedding`: where the training data lies. */
  readonly novelty?: NoveltyReference;
}

/**
 * Class 0 is normal, 1 anomalous. The confidence is that of the decision: {@link anomalyProbability} or 1 minus it.
 * `error` is the mean squared difference of input and reconstruction, the distance of the embedding in units of the baseline's median
 * ({@link noveltyOf}), or the output itself (of a map of scores, the highest).
 * @throws FieldloopError `model_output_invalid` where the output does not fit or is not finite, `manifest_invalid` where the package has no
 * baseline to measure an embedding against
 */
export function readAnomaly(
  head: AnomalyHead,
  output: Tensor,
  reference: AnomalyReference = {},
): AnomalyResult {
  const values = realValues(output, head.quantization);
  const error = errorOf(head, values, reference);
  if (!Number.isFinite(error)) {
    throw outputInvalid(head, `output "${head.output}" holds values that are not finite`);
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

function errorOf(head: AnomalyHead, values: Float32Array, reference: AnomalyReference): number {
  switch (head.method) {
    case "reconstruction":
      return reconstructionError(head, values, reference);
    case "embedding":
      if (reference.novelty === undefined) {
        throw new FieldloopError(
          "manifest_invalid",
          `Read head "${head.name}": method "embedding" wants a baseline with embeddings of the training data in the package`,
        );
      }
      return noveltyOf(values, reference.novelty);
    case "score":
      return highestOf(values);
  }
}

function reconstructionError(head: AnomalyHead, values: Float32Array, reference: AnomalyReference): number {
  if (reference.input === undefined) throw outputInvalid(head, "the run has no input to compare with");
  const original = realValues(reference.input, reference.inputQuantization);
  if (values.length !== original.length) {
    throw outputInvalid(
      head,
      `output "${head.output}" has ${values.length} values, its input ${original.length}`,
    );
  }
  let sum = 0;
  for (let at = 0; at < original.length; at++) sum += (original[at]! - values[at]!) ** 2;
  return sum / Math.max(original.length, 1);
}

/** NaN where any value is. */
function highestOf(values: Float32Array): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (const value of values) highest = Math.max(highest, value);
  return highest;
}
