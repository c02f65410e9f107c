import type { Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { IDENTITY_GEOMETRY } from "../input/frame.js";
import type { DetectionView } from "./detection.js";
import type { Keypoint, KeypointsResult } from "./result.js";
import { clipUnit, named, outputInvalid, realValues } from "./values.js";

export type KeypointsHead = Extract<Head, { kind: "keypoints" }>;

/** x, y in 0..1 of the model's input, and a score. */
type Point = readonly [x: number, y: number, score: number];

/**
 * Points in 0..1 of the source image, those that score at least the threshold, in the order of the labels; the confidence is the mean score of
 * all points. The peak of a heatmap is refined below its cell by a parabola through it and its neighbours, over logarithms where they are positive,
 * which is exact for a Gaussian (after Zhang et al. 2020, "Distribution-aware coordinate representation"). A point lies in the middle of its cell.
 * @throws FieldloopError `model_output_invalid` where the output has another shape
 */
export function readKeypoints(
  head: KeypointsHead,
  output: Tensor,
  view: DetectionView = {},
): KeypointsResult {
  const values = realValues(output, head.quantization);
  const geometry = view.geometry ?? IDENTITY_GEOMETRY;
  const places =
    head.format === "heatmap"
      ? fromHeatmap(head, output, values)
      : fromCoordinates(head, output, values, view);
  const points: Keypoint[] = [];
  let sum = 0;
  places.forEach(([x, y, raw], index) => {
    const score = Number.isFinite(x) && Number.isFinite(y) ? clipUnit(raw) : 0;
    sum += score;
    if (score < head.scoreThreshold) return;
    points.push({
      label: head.labels[index]!,
      x: clipUnit(x * geometry.scaleX + geometry.offsetX),
      y: clipUnit(y * geometry.scaleY + geometry.offsetY),
      score,
    });
  });
  return { kind: "keypoints", name: head.name, points, confidence: sum / head.labels.length };
}

function fromHeatmap(head: KeypointsHead, output: Tensor, values: Float32Array): Point[] {
  const [batch = 0, count = 0, height = 0, width = 0] = output.dims;
  const empty = batch !== 1 || height * width === 0;
  if (output.dims.length !== 4 || count !== head.labels.length || empty) {
    throw outputInvalid(
      head,
      `output ${named(head.output, output)}, wanted [1, ${head.labels.length}, rows, columns]`,
    );
  }
  return head.labels.map((_, index) => {
    const plane = values.subarray(index * height * width, (index + 1) * height * width);
    return peakOf(plane, width, height);
  });
}

function peakOf(plane: Float32Array, width: number, height: number): Point {
  let peak = 0;
  for (let at = 1; at < plane.length; at++) if (plane[at]! > plane[peak]!) peak = at;
  const x = peak % width;
  const y = Math.floor(peak / width);
  const value = plane[peak]!;
  const shiftX = x > 0 && x < width - 1 ? vertexOf(plane[peak - 1]!, value, plane[peak + 1]!) : 0;
  const shiftY = y > 0 && y < height - 1 ? vertexOf(plane[peak - width]!, value, plane[peak + width]!) : 0;
  return [(x + shiftX + 0.5) / width, (y + shiftY + 0.5) / height, value];
}

/** Where a parabola through three neighbours is highest, in cells from the middle one; at most half a cell. */
function vertexOf(before: number, middle: number, after: number): number {
  const positive = before > 0 && middle > 0 && after > 0;
  const [a, b, c] = positive
    ? [Math.log(before), Math.log(middle), Math.log(after)]
    : [before, middle, after];
  const bend = a - 2 * b + c;
  if (!(bend < 0)) return 0;
  return Math.min(Math.max((a - c) / (2 * bend), -0.5), 0.5);
}

function fromCoordinates(
  head: KeypointsHead,
  output: Tensor,
  values: Float32Array,
  view: DetectionView,
): Point[] {
  const stride = head.values;
  if (values.length !== head.labels.length * stride) {
    throw outputInvalid(
      head,
      `output ${named(head.output, output)}, wanted ${stride} values for each of ${head.labels.length} labels`,
    );
  }
  const { width, height } = head.units === "pixel" ? sizeOf(head, view) : { width: 1, height: 1 };
  const [first, second] = head.order === "yx" ? [1, 0] : [0, 1];
  return head.labels.map((_, index) => {
    const at = index * stride;
    const score = stride === 3 ? values[at + 2]! : 1;
    return [values[at + first]! / width, values[at + second]! / height, score];
  });
}

function sizeOf(head: KeypointsHead, view: DetectionView) {
  const { width = 0, height = 0 } = view.size ?? {};
  if (width > 0 && height > 0) return { width, height };
  throw outputInvalid(head, `output "${head.output}" counts in pixels, wanted an input that is an image`);
}
