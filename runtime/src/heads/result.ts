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
  /** Pose models: the points of each box, in the order of the boxes. */
  readonly keypoints?: readonly (readonly Keypoint[])[];
  /** Instance segmentation: for each box, a mask over the box alone at the resolution of the prototypes: 1 where it is the object. */
  readonly masks?: readonly Mask[];
}

export interface AnomalyResult extends Decision {
  readonly kind: "anomaly";
  /** Mean squared difference of input and reconstruction, or the distance, or the score itself. */
  readonly error: number;
  /** `error` over the head's threshold: above 1 is anomalous. */
  readonly score: number;
}

/** Class numbers of pixels, row by row; the highest number of the array's type for a pixel of no label. */
export interface Mask {
  readonly width: number;
  readonly height: number;
  readonly classes: Uint8Array | Uint16Array;
}

export interface SegmentationResult extends Decision {
  readonly kind: "segmentation";
  readonly mask: Mask;
  /** Share of the pixels of each label, 0..1; together 1 where every pixel has a label. */
  readonly shares: Float32Array;
}

/** Corners and points in 0..1 of the source image. */
export interface Keypoint {
  readonly label: string;
  readonly x: number;
  readonly y: number;
  /** 0..1; 1 where the model gives none. */
  readonly score: number;
}

export interface KeypointsResult {
  readonly kind: "keypoints";
  readonly name: string;
  /** Those that score at least the head's threshold. */
  readonly points: readonly Keypoint[];
  /** Mean score of the points, 0..1. */
  readonly confidence: number;
}

export interface RegressionResult {
  readonly kind: "regression";
  readonly name: string;
  /** In the order and units of the head's targets. */
  readonly values: Float32Array;
  /** Place of the first value between its `min` and `max`, unclipped; absent without them. */
  readonly position?: number;
}

/** Image to image. */
export interface ImageResult {
  readonly kind: "image";
  readonly name: string;
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
}

export interface EmbeddingResult {
  readonly kind: "embedding";
  readonly name: string;
  readonly embedding: Float32Array;
}

export type HeadResult =
  | ClassificationResult
  | DetectionResult
  | SegmentationResult
  | KeypointsResult
  | RegressionResult
  | AnomalyResult
  | EmbeddingResult
  | ImageResult;

/** Label where no class was found. */
export const NO_LABEL = "none";
