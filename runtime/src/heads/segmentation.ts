import type { Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { binaryEntropy } from "./distribution.js";
import { NO_LABEL, type Mask, type SegmentationResult } from "./result.js";
import { clipUnit, named, outputInvalid, realValues, requireProbability, sigmoidOf } from "./values.js";

export type SegmentationHead = Extract<Head, { kind: "segmentation" }>;

/** Pixels of the decided class that confidence, margin and entropy are read from, spread evenly: bounds the cost of large masks. */
const PIXELS_JUDGED_MAX = 4_096;
/** Pixels compared over all classes before the next ones: what is compared stays in the fastest cache. */
const PIXELS_AT_ONCE = 2_048;

/** Class planes or class vectors of one image. */
interface Scores {
  readonly data: Float32Array;
  readonly width: number;
  readonly height: number;
  /** 0 where the output holds class numbers. */
  readonly classes: number;
  readonly pixelStride: number;
  readonly classStride: number;
}

/** Number of a pixel that is of no label, as in the ignored regions of public data sets. */
export function unlabelled(mask: Pick<Mask, "classes">): number {
  return mask.classes instanceof Uint8Array ? 0xff : 0xffff;
}

/**
 * The class of every pixel: the highest of its scores; with one channel a sigmoid at one half, set pixels being of the last label and the others
 * of the first of two, or of none. The decision is the label with the most pixels that is not the background, and the background's absence of findings is
 * class -1. Confidence, margin and entropy are means over the pixels of that decision; class numbers alone give 1, 1 and 0.
 * @throws FieldloopError `model_output_invalid` where the output has another shape, holds class numbers beyond the labels, or what is said to
 * be probabilities is none
 */
export function readSegmentation(head: SegmentationHead, output: Tensor): SegmentationResult {
  const scores = scoresOf(head, output);
  const mask = head.values === "labels" ? labelMask(head, scores) : argmaxMask(head, scores);
  const counts = countLabels(head, mask);
  const pixels = Math.max(mask.classes.length, 1);
  const decided = largest(head, counts);
  const background = head.background === undefined ? unlabelled(mask) : head.labels.indexOf(head.background);
  const judged = judge(head, scores, mask, decided >= 0 ? decided : background);
  return {
    kind: "segmentation",
    name: head.name,
    class: decided,
    label: decided < 0 ? NO_LABEL : head.labels[decided]!,
    ...judged,
    mask,
    shares: Float32Array.from(counts, (count) => count / pixels),
  };
}

function scoresOf(head: SegmentationHead, output: Tensor): Scores {
  const data = realValues(output, head.quantization);
  const dims = output.dims[0] === 1 && output.dims.length > 2 ? output.dims.slice(1) : output.dims;
  if (head.values === "labels") {
    const [height, width] = dims.filter((size, at) => size !== 1 || at >= dims.length - 2);
    if (height !== undefined && width !== undefined && height * width === data.length) {
      return { data, width, height, classes: 0, pixelStride: 1, classStride: 0 };
    }
    throw outputInvalid(
      head,
      `output ${named(head.output, output)}, wanted [1, rows, columns] class numbers`,
    );
  }
  const [a = 0, b = 0, c = 0] = dims;
  const [classes, height, width] = head.layout === "nchw" ? [a, b, c] : [c, a, b];
  const wanted = head.labels.length;
  if (dims.length !== 3 || (classes !== wanted && !(classes === 1 && wanted === 2))) {
    const shape = head.layout === "nchw" ? `[1, ${wanted}, rows, columns]` : `[1, rows, columns, ${wanted}]`;
    throw outputInvalid(head, `output ${named(head.output, output)}, wanted ${shape}`);
  }
  const planar = head.layout === "nchw";
  return {
    data,
    width,
    height,
    classes,
    pixelStride: planar ? 1 : classes,
    classStride: planar ? width * height : 1,
  };
}

function emptyMask(head: SegmentationHead, scores: Scores): Mask {
  const { width, height } = scores;
  const classes =
    head.labels.length < 0xff ? new Uint8Array(width * height) : new Uint16Array(width * height);
  return { width, height, classes };
}

function labelMask(head: SegmentationHead, scores: Scores): Mask {
  const mask = emptyMask(head, scores);
  const none = unlabelled(mask);
  for (let at = 0; at < mask.classes.length; at++) {
    const label = scores.data[at]!;
    if (label !== none && !(label >= 0 && label < head.labels.length)) {
      throw outputInvalid(
        head,
        `output "${head.output}" names class ${label}, there are ${head.labels.length} labels`,
      );
    }
    mask.classes[at] = label;
  }
  return mask;
}

function argmaxMask(head: SegmentationHead, scores: Scores): Mask {
  const mask = emptyMask(head, scores);
  const { data, classes: count, pixelStride, classStride } = scores;
  const none = unlabelled(mask);
  if (count === 1) {
    const bound = head.values === "logits" ? 0 : 0.5;
    const set = head.labels.length - 1;
    const unset = set === 1 ? 0 : none;
    for (let at = 0; at < data.length; at++) mask.classes[at] = data[at]! >= bound ? set : unset;
    return mask;
  }
  mask.classes.fill(none);
  const best = new Float32Array(Math.min(PIXELS_AT_ONCE, mask.classes.length));
  for (let from = 0; from < mask.classes.length; from += PIXELS_AT_ONCE) {
    const winners = mask.classes.subarray(from, from + PIXELS_AT_ONCE);
    best.fill(Number.NEGATIVE_INFINITY);
    for (let label = 0; label < count; label++) {
      raise(winners, best, data, label, from * pixelStride + label * classStride, pixelStride);
    }
  }
  return mask;
}

/** Pixels whose score for `label` is higher than before become of that label. */
function raise(
  winners: Mask["classes"],
  best: Float32Array,
  data: Float32Array,
  label: number,
  from: number,
  stride: number,
): void {
  for (let pixel = 0, at = from; pixel < winners.length; pixel++, at += stride) {
    const score = data[at]!;
    if (score > best[pixel]!) {
      best[pixel] = score;
      winners[pixel] = label;
    }
  }
}

function countLabels(head: SegmentationHead, mask: Mask): Uint32Array {
  const counts = new Uint32Array(head.labels.length);
  const none = unlabelled(mask);
  const { classes } = mask;
  for (let at = 0; at < classes.length; at++) if (classes[at] !== none) counts[classes[at]!]!++;
  return counts;
}

/** The label with the most pixels that is not the background; -1 where there are none. */
function largest(head: SegmentationHead, counts: Uint32Array): number {
  let found = -1;
  counts.forEach((count, label) => {
    if (count === 0 || head.labels[label] === head.background) return;
    if (found < 0 || count > counts[found]!) found = label;
  });
  return found;
}

/** Means over the pixels of class `label`, or of so many of them. */
function judge(head: SegmentationHead, scores: Scores, mask: Mask, label: number) {
  if (head.values === "labels") return { confidence: 1, margin: 1, entropy: 0 };
  const pixels = pixelsOf(mask, label);
  const probabilities = new Float64Array(Math.max(scores.classes, 2));
  let confidence = 0;
  let margin = 0;
  let entropy = 0;
  for (const pixel of pixels) {
    probabilitiesAt(head, scores, pixel, probabilities);
    const [first, second, disorder] = summarize(probabilities);
    confidence += first;
    margin += first - second;
    entropy += disorder;
  }
  const count = Math.max(pixels.length, 1);
  const mean = (sum: number): number => clipUnit(sum / count);
  return { confidence: mean(confidence), margin: mean(margin), entropy: mean(entropy) };
}

/** Every so many-th pixel of a class, in order. */
function pixelsOf({ classes }: Mask, label: number): number[] {
  let count = 0;
  for (let at = 0; at < classes.length; at++) if (classes[at] === label) count++;
  const step = Math.max(Math.ceil(count / PIXELS_JUDGED_MAX), 1);
  const pixels: number[] = [];
  for (let at = 0, seen = 0; at < classes.length; at++) {
    if (classes[at] === label && seen++ % step === 0) pixels.push(at);
  }
  return pixels;
}

function probabilitiesAt(head: SegmentationHead, scores: Scores, pixel: number, into: Float64Array): void {
  const { data, classes, pixelStride, classStride } = scores;
  const from = pixel * pixelStride;
  if (classes === 1) {
    const p = head.values === "logits" ? sigmoidOf(data[from]!) : probability(head, data[from]!);
    into[0] = p;
    into[1] = 1 - p;
    return;
  }
  let highest = Number.NEGATIVE_INFINITY;
  for (let label = 0; label < classes; label++)
    highest = Math.max(highest, data[from + label * classStride]!);
  let sum = 0;
  for (let label = 0; label < classes; label++) {
    const value = data[from + label * classStride]!;
    into[label] = head.values === "logits" ? Math.exp(value - highest) : probability(head, value);
    sum += into[label]!;
  }
  for (let label = 0; label < classes; label++) into[label]! /= sum;
}

function probability(head: SegmentationHead, value: number): number {
  requireProbability(head, head.output, value);
  return clipUnit(value);
}

/** Highest, second highest, and normalized entropy. */
function summarize(probabilities: Float64Array): [number, number, number] {
  let first = 0;
  let second = 0;
  let disorder = 0;
  for (const p of probabilities) {
    if (p > first) {
      second = first;
      first = p;
    } else if (p > second) second = p;
    if (p > 0) disorder -= p * Math.log(p);
  }
  if (probabilities.length === 2) return [first, second, binaryEntropy(first)];
  return [first, second, Math.min(disorder / Math.log(probabilities.length), 1)];
}
