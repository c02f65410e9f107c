import { FieldloopError } from "@fieldloop/protocol";
import type { NoveltyReference } from "./baseline.js";

/** A copy of unit length; a vector of zeros stays one. */
export function unitVector(values: ArrayLike<number>): Float32Array {
  let squares = 0;
  for (let at = 0; at < values.length; at++) squares += values[at]! ** 2;
  const scale = squares > 0 ? 1 / Math.sqrt(squares) : 0;
  return Float32Array.from(values, (value) => value * scale);
}

/**
 * Distance of an embedding from the training data in units of the validation median: 1 is usual, 3 is far. Euclidean
 * distance of the L2-normalized embedding to its nearest centroid, a constant-memory form of nearest-neighbour
 * out-of-distribution detection (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors").
 */
export function noveltyOf(embedding: Float32Array, reference: NoveltyReference): number {
  return nearest(unitVector(embedding), reference.centroids, reference.length).distance / reference.median;
}

export interface NoveltyOptions {
  /** Embeddings of the training data. */
  readonly training: readonly Float32Array[];
  /** Embeddings of held-out data of the same kind: their median distance is the unit. */
  readonly validation: readonly Float32Array[];
  readonly centroidCount: number;
  /** 0..1, for the choice of the first centroids. */
  readonly random: () => number;
}

const ITERATIONS_MAX = 15;

/**
 * Centroids by k-means over the normalized training embeddings (k-means++ start), and their unit. Same input and same
 * random numbers give the same bytes.
 */
export function fitNovelty(options: NoveltyOptions): NoveltyReference {
  const points = options.training.map(unitVector);
  const length = points[0]?.length ?? 0;
  if (length === 0 || options.validation.length === 0 || points.some((point) => point.length !== length)) {
    throw new FieldloopError(
      "invalid_argument",
      `Fit novelty: ${points.length} training and ${options.validation.length} validation embeddings, wanted some of one length`,
    );
  }
  const count = Math.min(options.centroidCount, points.length);
  const centroids = startCentroids(points, count, length, options.random);
  for (let iteration = 0; iteration < ITERATIONS_MAX; iteration++) {
    if (!moveCentroids(points, centroids, count, length)) break;
  }
  const distances = options.validation
    .map((embedding) => nearest(unitVector(embedding), centroids, length).distance)
    .sort((a, b) => a - b);
  const median = Math.max(distances[Math.floor(distances.length / 2)]!, 1e-6);
  return { centroids, count, length, median };
}

/** Arthur and Vassilvitskii 2007: each next start is drawn with a chance that grows with its squared distance. */
function startCentroids(
  points: readonly Float32Array[],
  count: number,
  length: number,
  random: () => number,
): Float32Array {
  const centroids = new Float32Array(count * length);
  const squared = new Float64Array(points.length).fill(Number.POSITIVE_INFINITY);
  let chosen = Math.min(Math.floor(random() * points.length), points.length - 1);
  for (let index = 0; index < count; index++) {
    centroids.set(points[chosen]!, index * length);
    let sum = 0;
    points.forEach((point, at) => {
      squared[at] = Math.min(squared[at]!, squaredDistance(point, centroids, index * length));
      sum += squared[at]!;
    });
    let left = random() * sum;
    chosen = 0;
    while (chosen < points.length - 1 && left >= squared[chosen]!) left -= squared[chosen++]!;
  }
  return centroids;
}

/** One step of Lloyd's algorithm; false where nothing moved. A centroid that lost its points stays. */
function moveCentroids(
  points: readonly Float32Array[],
  centroids: Float32Array,
  count: number,
  length: number,
): boolean {
  const sums = new Float64Array(centroids.length);
  const members = new Uint32Array(count);
  for (const point of points) {
    const { index } = nearest(point, centroids, length);
    members[index]!++;
    for (let at = 0; at < length; at++) sums[index * length + at]! += point[at]!;
  }
  let moved = false;
  for (let index = 0; index < count; index++) {
    if (members[index] === 0) continue;
    const next = unitVector(sums.subarray(index * length, (index + 1) * length));
    moved ||= squaredDistance(next, centroids, index * length) > 1e-10;
    centroids.set(next, index * length);
  }
  return moved;
}

function nearest(
  point: Float32Array,
  centroids: Float32Array,
  length: number,
): { index: number; distance: number } {
  if (point.length !== length) {
    throw new FieldloopError(
      "model_output_invalid",
      `Compute novelty: an embedding of ${point.length} values, the baseline has ${length}`,
    );
  }
  let index = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let offset = 0; offset < centroids.length; offset += length) {
    const squared = squaredDistance(point, centroids, offset);
    if (squared < least) {
      least = squared;
      index = offset / length;
    }
  }
  return { index, distance: Math.sqrt(least) };
}

function squaredDistance(point: Float32Array, others: Float32Array, offset: number): number {
  let sum = 0;
  for (let at = 0; at < point.length; at++) sum += (point[at]! - others[offset + at]!) ** 2;
  return sum;
}
