import { FieldloopError, type Anchors } from "@fieldloop/protocol";
import { logitOf, named, outputInvalid, realValues, sigmoidOf, tensorOf, type Tensors } from "../values.js";
import { priorCount, priorsOf } from "./anchors.js";
import type { Candidates } from "./candidates.js";
import type { Decoder, DetectionHead, InputSize } from "./decoder.js";
import { unitScale } from "./yolo.js";

/**
 * Single-shot detectors: scores [1, N, 1 + labels] with the background first (or [1, N, labels] without one), boxes [1, N, 4] as corners
 * (`ultraface`, `decoded`) or as offsets to prior boxes: centre = prior centre + offset · variance · prior size, size = prior size ·
 * exp(value · variance) (Liu et al. 2016, section 2.2). Points beside the boxes are offsets like their centres (RetinaFace).
 */
export function ssdDecoder(head: DetectionHead, outputs: Tensors, size: InputSize): Decoder {
  const { scores, columns, boxes, count } = readOutputs(head, outputs);
  const anchors = head.format === "ultraface" || head.anchors?.decoded ? undefined : anchorsOf(head);
  const priors = anchors === undefined ? undefined : priorsFor(head, anchors, size, count);
  const [centreVariance, sizeVariance] = anchors?.variances ?? [1, 1];
  const points = pointsOf(head, outputs, count);
  const { scaleX, scaleY } = unitScale(head, size);
  return {
    count,
    scan: (candidates) => scanScores(head, scores, columns, count, candidates),
    corners: (row, into, at) => {
      const from = row * 4;
      if (priors === undefined) {
        for (let index = 0; index < 4; index += 2) {
          into[at + index] = boxes[from + index]! * scaleX;
          into[at + index + 1] = boxes[from + index + 1]! * scaleY;
        }
        return;
      }
      const width = priors[from + 2]!;
      const height = priors[from + 3]!;
      const x = priors[from]! + boxes[from]! * centreVariance * width;
      const y = priors[from + 1]! + boxes[from + 1]! * centreVariance * height;
      const halfWidth = (width * Math.exp(boxes[from + 2]! * sizeVariance)) / 2;
      const halfHeight = (height * Math.exp(boxes[from + 3]! * sizeVariance)) / 2;
      into[at] = x - halfWidth;
      into[at + 1] = y - halfHeight;
      into[at + 2] = x + halfWidth;
      into[at + 3] = y + halfHeight;
    },
    point: (row, index, into) => {
      const { values, stride, perRow } = points!;
      const at = row * perRow + index * stride;
      const from = row * 4;
      const x = values[at]!;
      const y = values[at + 1]!;
      into[0] = priors === undefined ? x * scaleX : priors[from]! + x * centreVariance * priors[from + 2]!;
      into[1] =
        priors === undefined ? y * scaleY : priors[from + 1]! + y * centreVariance * priors[from + 3]!;
      into[2] = stride === 3 ? values[at + 2]! : 1;
    },
  };
}

function readOutputs(head: DetectionHead, outputs: Tensors) {
  if (head.scores === undefined) {
    throw new FieldloopError("manifest_invalid", `Read head "${head.name}": it names no output with scores`);
  }
  const scoresTensor = tensorOf(head, outputs, head.scores);
  const boxesTensor = tensorOf(head, outputs, head.boxes);
  const scores = realValues(scoresTensor, head.quantization);
  const boxes = realValues(boxesTensor, head.quantization);
  const labels = head.labels.length;
  const count = boxes.length / 4;
  const columns = scores.length / count;
  const fits = columns === labels + 1 || (columns === labels && head.format === "ssd");
  if (boxes.length % 4 !== 0 || (count > 0 ? !fits : scores.length > 0)) {
    throw outputInvalid(
      head,
      `outputs ${named(head.scores, scoresTensor)} and ${named(head.boxes, boxesTensor)}, wanted [1, N, ${labels + 1}] and [1, N, 4]`,
    );
  }
  return { scores, boxes, count, columns };
}

function anchorsOf(head: DetectionHead): Anchors {
  if (head.anchors !== undefined) return head.anchors;
  throw new FieldloopError("manifest_invalid", `Read head "${head.name}": format "ssd" wants anchors`);
}

function priorsFor(head: DetectionHead, anchors: Anchors, size: InputSize, count: number): Float32Array {
  // Before any are made: the model's own boxes bound their number.
  const wanted = priorCount(anchors, size);
  if (wanted === count) return priorsOf(head, anchors, size);
  throw outputInvalid(
    head,
    `output "${head.boxes}" has ${count} boxes, the anchors of an input of ${size.width} × ${size.height} are ${wanted}`,
  );
}

function pointsOf(head: DetectionHead, outputs: Tensors, count: number) {
  const { keypoints } = head;
  if (keypoints?.output === undefined) return undefined;
  const tensor = tensorOf(head, outputs, keypoints.output);
  const values = realValues(tensor, head.quantization);
  const stride = keypoints.scored ? 3 : 2;
  const perRow = keypoints.labels.length * stride;
  if (values.length !== count * perRow) {
    throw outputInvalid(head, `output ${named(keypoints.output, tensor)}, wanted [1, ${count}, ${perRow}]`);
  }
  return { values, stride, perRow };
}

function scanScores(
  head: DetectionHead,
  scores: Float32Array,
  columns: number,
  count: number,
  candidates: Candidates,
): void {
  const first = columns - head.labels.length;
  if (head.values !== "logits") return scanProbabilities(scores, columns, first, count, candidates);
  if (head.activation === "sigmoid") return scanSigmoid(scores, columns, first, count, candidates);
  return scanSoftmax(scores, columns, first, count, candidates);
}

function scanProbabilities(
  scores: Float32Array,
  columns: number,
  first: number,
  count: number,
  candidates: Candidates,
): void {
  for (let row = 0; row < count; row++) {
    for (let column = first; column < columns; column++) {
      const score = scores[row * columns + column]!;
      if (score > candidates.scoreMax) candidates.scoreMax = score;
      if (score >= candidates.floor) candidates.add(Math.min(score, 1), row, column - first);
    }
  }
}

function scanSigmoid(
  scores: Float32Array,
  columns: number,
  first: number,
  count: number,
  candidates: Candidates,
): void {
  const floor = logitOf(candidates.floor);
  let highest = Number.NEGATIVE_INFINITY;
  for (let row = 0; row < count; row++) {
    for (let column = first; column < columns; column++) {
      const logit = scores[row * columns + column]!;
      if (logit > highest) highest = logit;
      if (logit >= floor) candidates.add(sigmoidOf(logit), row, column - first);
    }
  }
  if (highest > Number.NEGATIVE_INFINITY) candidates.see(sigmoidOf(highest));
}

/**
 * p of a class is at most the sigmoid of its distance from the highest other logit, so rows that cannot reach the floor nor the highest
 * score so far are passed over without an exponential.
 */
function scanSoftmax(
  scores: Float32Array,
  columns: number,
  first: number,
  count: number,
  candidates: Candidates,
): void {
  for (let row = 0; row < count; row++) {
    const from = row * columns;
    let best = Number.NEGATIVE_INFINITY;
    for (let column = first; column < columns; column++) best = Math.max(best, scores[from + column]!);
    const background = first > 0 ? scores[from]! : Number.NEGATIVE_INFINITY;
    const limit = first > 0 ? sigmoidOf(best - background) : 1;
    if (limit < candidates.floor && limit <= candidates.scoreMax) continue;
    const highest = Math.max(best, background);
    let sum = 0;
    for (let column = 0; column < columns; column++) sum += Math.exp(scores[from + column]! - highest);
    for (let column = first; column < columns; column++) {
      const score = Math.exp(scores[from + column]! - highest) / sum;
      candidates.see(score);
      candidates.add(score, row, column - first);
    }
  }
}
