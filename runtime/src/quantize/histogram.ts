import { QUANTIZE_LIMITS } from "./limits.js";

/** Bins of a histogram; its precision is the range divided by at least half of this. */
export const BIN_COUNT = QUANTIZE_LIMITS.histogramBytesPerTensor / Float64Array.BYTES_PER_ELEMENT;

/**
 * A histogram whose bins are multiples of a width that doubles whenever a value falls outside, neighbours merging
 * exactly, so that one pass suffices and the result does not depend on the order of batches beyond the first width.
 * It holds `BIN_COUNT` numbers whatever it sees.
 */
export class AdaptiveHistogram {
  /** Bin i counts values in [(i - BIN_COUNT / 2) * width, (i + 1 - BIN_COUNT / 2) * width). */
  readonly bins = new Float64Array(BIN_COUNT);
  count = 0;
  min = Number.POSITIVE_INFINITY;
  max = Number.NEGATIVE_INFINITY;
  #width = 0;

  /** 0 while every value was 0. */
  get width(): number {
    return this.#width;
  }

  /** Adds finite values; `min` and `max` are theirs. */
  add(values: Float32Array, min: number, max: number): void {
    if (min > max) return;
    this.min = Math.min(this.min, min);
    this.max = Math.max(this.max, max);
    this.#widenTo(Math.max(-min, max));
    this.count += values.length;
    const half = BIN_COUNT / 2;
    const { bins } = this;
    for (let index = 0; index < values.length; index++) {
      const bin = this.#width === 0 ? half : Math.floor(values[index]! / this.#width) + half;
      bins[bin]!++;
    }
  }

  /** Counts of |value| in `BIN_COUNT / 2` bins of `width` from 0 on. */
  magnitudes(): Float64Array {
    const half = BIN_COUNT / 2;
    return Float64Array.from({ length: half }, (_, at) => this.bins[half + at]! + this.bins[half - 1 - at]!);
  }

  /** Makes `magnitude` fit strictly inside on both sides. */
  #widenTo(magnitude: number): void {
    if (magnitude === 0) return;
    if (this.#width === 0) {
      // All values so far were 0 and lie in the bin that starts at 0, which stays theirs.
      this.#width = magnitude / (BIN_COUNT / 2 - 1);
      return;
    }
    while (magnitude >= this.#width * (BIN_COUNT / 2)) {
      this.#mergeNeighbours();
      this.#width *= 2;
    }
  }

  /** In place, from the middle outwards: a target bin is always nearer to the middle than the bins it takes in. */
  #mergeNeighbours(): void {
    const half = BIN_COUNT / 2;
    const { bins } = this;
    for (let at = 0; at < half / 2; at++) bins[half + at] = bins[half + 2 * at]! + bins[half + 2 * at + 1]!;
    bins.fill(0, half + half / 2);
    for (let at = 1; at <= half / 2; at++) bins[half - at] = bins[half - 2 * at]! + bins[half - 2 * at + 1]!;
    bins.fill(0, 0, half / 2);
  }
}
