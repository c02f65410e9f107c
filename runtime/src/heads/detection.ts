import { FieldloopError, type Box, type Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { IDENTITY_GEOMETRY, type Geometry } from "../input/frame.js";
import { asFloat32 } from "../package/tensor-bytes.js";
import { binaryEntropy } from "./distribution.js";
import { suppressOverlaps } from "./nms.js";
import { NO_LABEL, type DetectionResult } from "./result.js";

export type DetectionHead = Extract<Head, { kind: "detection" }>;

/** Candidates with at least this share of the threshold are no detections, but they show doubt. */
const DOUBT_SHARE = 0.5;
/** Candidates that enter suppression, best first: bounds its quadratic cost on a frame full of noise. */
const CANDIDATES_MAX = 1_000;

/**
 * Boxes above the threshold after suppression. The decision is that of the best box; without one, `class` is -1 and the
 * confidence that there is nothing is 1 minus the highest score. Margin and entropy are those of the most doubtful
 * candidate that survives suppression with at least half the threshold (of the best `detectionsMax`).
 * @throws FieldloopError `model_output_invalid` where the outputs contradict each other or the labels
 */
export function readDetection(
  head: DetectionHead,
  scores: Tensor,
  boxes: Tensor,
  geometry: Geometry = IDENTITY_GEOMETRY,
): DetectionResult {
  switch (head.format) {
    case "ultraface":
      return decide(head, readUltraface(head, scores, boxes, geometry));
    case "ssd":
    case "fastestdet":
    case "yolov5":
    case "yolox":
    case "yolov8":
    case "yolov10":
    case "rtdetr":
      throw new FieldloopError("onnx_unsupported", `Read head "${head.name}": format "${head.format}"`);
  }
}

interface Candidates {
  readonly boxes: Box[];
  /** Highest score of any class but the background. */
  readonly scoreMax: number;
}

/** `scores` [1, N, 1 + labels] with the background first, `boxes` [1, N, 4] as corners in 0..1. */
function readUltraface(head: DetectionHead, scores: Tensor, boxes: Tensor, geometry: Geometry): Candidates {
  const classCount = head.labels.length + 1;
  const score = asFloat32(scores);
  const corner = asFloat32(boxes);
  const count = corner.length / 4;
  if (corner.length % 4 !== 0 || score.length !== count * classCount) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": outputs "${head.scores}" [${scores.dims.join(", ")}] and "${head.boxes}" [${boxes.dims.join(", ")}], wanted [1, N, ${classCount}] and [1, N, 4]`,
    );
  }
  const found: Box[] = [];
  let scoreMax = 0;
  const floor = head.scoreThreshold * DOUBT_SHARE;
  for (let row = 0; row < count; row++) {
    for (let column = 1; column < classCount; column++) {
      const value = score[row * classCount + column]!;
      if (value > scoreMax) scoreMax = value;
      if (!(value >= floor)) continue;
      found.push({ ...place(corner, row * 4, geometry), class: column - 1, score: Math.min(value, 1) });
    }
  }
  return { boxes: found, scoreMax: Math.min(scoreMax, 1) };
}

function place(corner: Float32Array, at: number, geometry: Geometry): Pick<Box, "x0" | "y0" | "x1" | "y1"> {
  const x = (value: number): number => unit(value * geometry.scaleX + geometry.offsetX);
  const y = (value: number): number => unit(value * geometry.scaleY + geometry.offsetY);
  return { x0: x(corner[at]!), y0: y(corner[at + 1]!), x1: x(corner[at + 2]!), y1: y(corner[at + 3]!) };
}

function decide(head: DetectionHead, candidates: Candidates): DetectionResult {
  let { boxes } = candidates;
  if (boxes.length > CANDIDATES_MAX) boxes = boxes.sort((a, b) => b.score - a.score).slice(0, CANDIDATES_MAX);
  const survivors = suppressOverlaps(boxes, head.iouThreshold, head.detectionsMax);
  const kept = survivors.filter((box) => box.score >= head.scoreThreshold);
  const doubtful = survivors.length > 0 ? survivors.map((box) => box.score) : [candidates.scoreMax];
  const best = kept[0];
  return {
    kind: "detection",
    name: head.name,
    class: best?.class ?? -1,
    label: best === undefined ? NO_LABEL : head.labels[best.class]!,
    confidence: best?.score ?? 1 - candidates.scoreMax,
    margin: Math.min(...doubtful.map((score) => Math.abs(2 * score - 1))),
    entropy: Math.max(...doubtful.map(binaryEntropy)),
    boxes: kept,
  };
}

/** Clipped to 0..1; NaN becomes 0. */
function unit(value: number): number {
  if (!(value > 0)) return 0;
  return value < 1 ? value : 1;
}
