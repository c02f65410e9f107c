import type { Box } from "@fieldloop/protocol";

/** What a head decided: `class` indexes the head's labels, -1 is none of them; `confidence` is of that decision, 0..1. */
interface Decision {
  readonly name: string;
  readonly class: number;
  readonly label: string;
  readonly confidence: number;
  /** Probability of the first class minus that of the second, 0..1. */
  readonly margin: number;
  /** Entropy of the class distribution over its maximum, 0..1. */
  readonly entropy: number;
}

export interface ClassificationResult extends Decision {
  readonly kind: "classification";
  readonly probabilities: Float32Array;
  /** Absent where the model gives probabilities. */
  readonly logits?: Float32Array;
  /** -T·logsumexp(logits/T) (Liu et al. 2020); absent without logits. */
  readonly energy?: number;
}

export interface DetectionResult extends Decision {
  readonly kind: "detection";
  /** Best score first; corners in 0..1 of the source image. */
  readonly boxes: readonly Box[];
}

export interface AnomalyResult extends Decision {
  readonly kind: "anomaly";
  /** Mean squared difference of input and reconstruction. */
  readonly error: number;
  /** `error` over the head's threshold: above 1 is anomalous. */
  readonly score: number;
}

export interface EmbeddingResult {
  readonly kind: "embedding";
  readonly name: string;
  readonly embedding: Float32Array;
}

export type HeadResult = ClassificationResult | DetectionResult | AnomalyResult | EmbeddingResult;

/** Label where no class was found. */
export const NO_LABEL = "none";
