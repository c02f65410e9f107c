import type { Box } from "@fieldloop/protocol";
import { IDENTITY_GEOMETRY, type Geometry } from "../input/frame.js";
import { Candidates } from "./detection/candidates.js";
import type { Decoder, DetectionHead, InputSize } from "./detection/decoder.js";
import { fastestdetDecoder } from "./detection/fastestdet.js";
import { listedDecoder } from "./detection/listed.js";
import { maskOf, prototypesOf } from "./detection/masks.js";
import { rtdetrDecoder } from "./detection/rtdetr.js";
import { ssdDecoder } from "./detection/ssd.js";
import { yolov10Decoder, yolov5Decoder, yolov8Decoder } from "./detection/yolo.js";
import { yoloxDecoder } from "./detection/yolox.js";
import { binaryEntropy } from "./distribution.js";
import { keepBest } from "./nms.js";
import { NO_LABEL, type DetectionResult, type Keypoint } from "./result.js";
import { clipUnit, outputInvalid, requireProbability, type Tensors } from "./values.js";

export type { DetectionHead, InputSize } from "./detection/decoder.js";

/** Candidates with at least this share of the threshold are no detections, but they show doubt. */
const DOUBT_SHARE = 0.5;
const NO_SIZE: InputSize = { width: 0, height: 0 };

/** Where the boxes lie: the size of the model's input in pixels, and its place in the source image. */
export interface DetectionView {
  readonly size?: InputSize;
  readonly geometry?: Geometry;
}

/**
 * Boxes above the threshold after suppression, in 0..1 of the source image. The decision is that of the best box; without one,
 * `class` is -1 and the confidence that there is nothing is 1 minus the highest score. Margin and entropy are those of the
 * most doubtful candidate that survives suppression with at least half the threshold (of the best `detectionsMax`).
 * @throws FieldloopError `model_output_invalid` where the outputs contradict each other or the labels, or no score is a probability;
 * `manifest_invalid` where the head lacks what its format needs
 */
export function readDetection(
  head: DetectionHead,
  outputs: Tensors,
  view: DetectionView = {},
): DetectionResult {
  const { geometry = IDENTITY_GEOMETRY } = view;
  const size = head.inputSize ?? view.size ?? NO_SIZE;
  const decoder = decoderOf(head, outputs, size);
  const candidates = new Candidates(head.scoreThreshold * DOUBT_SHARE);
  decoder.scan(candidates);
  if (decoder.count > 0 && candidates.scoreMax === Number.NEGATIVE_INFINITY) {
    throw outputInvalid(head, `output "${head.scores ?? head.boxes}" holds no score that is a number`);
  }
  if (decoder.count > 0) requireProbability(head, head.scores ?? head.boxes, candidates.scoreMax);
  const survivors = surviving(head, decoder, candidates, geometry);
  const found = survivors.filter(({ box }) => box.score >= head.scoreThreshold);
  return {
    kind: "detection",
    name: head.name,
    ...decide(head, survivors, found[0], clipUnit(candidates.scoreMax)),
    boxes: found.map(({ box }) => box),
    ...extrasOf(head, outputs, decoder, found, geometry),
  };
}

function decoderOf(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  switch (head.format) {
    case "ultraface":
    case "ssd":
      return ssdDecoder(head, outputs, size);
    case "fastestdet":
      return fastestdetDecoder(head, outputs);
    case "yolov5":
      return yolov5Decoder(head, outputs, size);
    case "yolox":
      return yoloxDecoder(head, outputs, size);
    case "yolov8":
      return yolov8Decoder(head, outputs, size);
    case "yolov10":
      return yolov10Decoder(head, outputs, size);
    case "rtdetr":
      return rtdetrDecoder(head, outputs, size);
    case "listed":
      return listedDecoder(head, outputs, size);
  }
}

interface Found {
  readonly box: Box;
  /** The decoder's number of it. */
  readonly row: number;
}

/** What suppression leaves, best first. Boxes that cover nothing of the source image, or are not numbers, are none. */
function surviving(
  head: DetectionHead,
  decoder: Decoder,
  candidates: Candidates,
  geometry: Geometry,
): Found[] {
  const ordered = candidates.ordered();
  const corners = new Float32Array(ordered.length * 4);
  const classes = new Uint16Array(ordered.length);
  const places: number[] = [];
  for (const place of ordered) {
    const at = places.length * 4;
    decoder.corners(candidates.row(place), corners, at);
    toSource(corners, at, geometry);
    if (!(corners[at + 2]! > corners[at]! && corners[at + 3]! > corners[at + 1]!)) continue;
    classes[places.length] = candidates.label(place);
    places.push(place);
  }
  const { iouThreshold, detectionsMax, suppression } = head;
  const kept = keepBest(
    corners,
    classes.subarray(0, places.length),
    iouThreshold,
    detectionsMax,
    suppression,
  );
  return kept.map((at) => ({
    row: candidates.row(places[at]!),
    box: {
      x0: corners[at * 4]!,
      y0: corners[at * 4 + 1]!,
      x1: corners[at * 4 + 2]!,
      y1: corners[at * 4 + 3]!,
      class: classes[at]!,
      score: candidates.score(places[at]!),
    },
  }));
}

/** From 0..1 of the model's input to 0..1 of the source image, clipped: what is not a number becomes 0. */
function toSource(corners: Float32Array, at: number, geometry: Geometry): void {
  for (let index = 0; index < 4; index += 2) {
    corners[at + index] = clipUnit(corners[at + index]! * geometry.scaleX + geometry.offsetX);
    corners[at + index + 1] = clipUnit(corners[at + index + 1]! * geometry.scaleY + geometry.offsetY);
  }
}

function decide(head: DetectionHead, survivors: readonly Found[], best: Found | undefined, scoreMax: number) {
  let margin = 1;
  let entropy = 0;
  for (const score of survivors.length > 0 ? survivors.map(({ box }) => box.score) : [scoreMax]) {
    margin = Math.min(margin, Math.abs(2 * score - 1));
    entropy = Math.max(entropy, binaryEntropy(score));
  }
  return {
    class: best?.box.class ?? -1,
    label: best === undefined ? NO_LABEL : head.labels[best.box.class]!,
    confidence: best?.box.score ?? 1 - scoreMax,
    margin,
    entropy,
  };
}

function extrasOf(
  head: DetectionHead,
  outputs: Tensors,
  decoder: Decoder,
  found: readonly Found[],
  geometry: Geometry,
): Pick<DetectionResult, "keypoints" | "masks"> {
  const prototypes = decoder.coefficient && prototypesOf(head, outputs);
  const keypoints = decoder.point && head.keypoints;
  return {
    ...(keypoints === undefined
      ? {}
      : { keypoints: found.map(({ row }) => pointsOf(keypoints.labels, decoder, row, geometry)) }),
    ...(prototypes === undefined
      ? {}
      : { masks: found.map(({ row, box }) => maskOf(prototypes, decoder, row, box, geometry)) }),
  };
}

function pointsOf(labels: readonly string[], decoder: Decoder, row: number, geometry: Geometry): Keypoint[] {
  const place = new Float32Array(3);
  return labels.map((label, index) => {
    decoder.point!(row, index, place);
    return {
      label,
      x: clipUnit(place[0]! * geometry.scaleX + geometry.offsetX),
      y: clipUnit(place[1]! * geometry.scaleY + geometry.offsetY),
      score: clipUnit(place[2]!),
    };
  });
}
