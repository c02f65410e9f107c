import type { HeadResult, Prediction } from "@fieldloop/runtime";

/** A prediction as programs on this machine get it, in JSON. */
export interface PredictionAnswer {
  /** `BOOT-N`: what feedback is given about. */
  readonly prediction: string;
  readonly class: number;
  readonly label: string;
  readonly confidence: number;
  readonly latencyMs: number;
  /** Null where the signal has no value for this frame. */
  readonly signals: Readonly<Record<string, number | null>>;
  readonly boxes?: readonly Readonly<Record<string, unknown>>[];
  /** What each head said, without masks, images and embeddings: those are tensors of the model. */
  readonly heads: readonly Readonly<Record<string, unknown>>[];
}

/** @param id `BOOT-N` */
export function predictionAnswer(id: string, prediction: Prediction): PredictionAnswer {
  const { class: predicted, label, confidence, latencyMs, signals, boxes, heads } = prediction;
  return {
    prediction: id,
    class: predicted,
    label,
    confidence,
    latencyMs,
    signals: Object.fromEntries(Object.entries(signals).map(([name, value]) => [name, finite(value)])),
    ...(boxes === undefined ? {} : { boxes: boxes.map((box) => ({ ...box })) }),
    heads: heads.map(headAnswer),
  };
}

function headAnswer(result: HeadResult): Record<string, unknown> {
  const { kind, name } = result;
  switch (result.kind) {
    case "classification":
      return {
        kind,
        name,
        label: result.label,
        confidence: result.confidence,
        probabilities: [...result.probabilities],
      };
    case "detection": {
      const { label, confidence, boxes, keypoints } = result;
      return {
        kind,
        name,
        label,
        confidence,
        boxes: boxes.length,
        ...(keypoints === undefined ? {} : { keypoints }),
      };
    }
    case "segmentation":
      return { kind, name, label: result.label, confidence: result.confidence, shares: [...result.shares] };
    case "keypoints":
      return { kind, name, confidence: result.confidence, points: result.points };
    case "regression":
      return { kind, name, values: [...result.values] };
    case "anomaly":
      return {
        kind,
        name,
        label: result.label,
        confidence: result.confidence,
        error: result.error,
        score: result.score,
      };
    case "embedding":
      return { kind, name, length: result.embedding.length };
    case "image":
      return { kind, name, width: result.width, height: result.height, channels: result.channels };
  }
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}
