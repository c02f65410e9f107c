import { FieldloopError } from "@fieldloop/protocol";

/** How calibration turns the values that a tensor takes into a range. */
export type CalibrationMethod =
  | { readonly kind: "minmax" }
  /** Cuts (100 - percentile) / 2 percent of the values on each side; 99.999 suits deep networks. */
  | { readonly kind: "percentile"; readonly percentile: number };

export interface RealRange {
  readonly min: number;
  readonly max: number;
}

/** Watches the values of one tensor, batch by batch, in memory that does not grow. */
export interface RangeObserver {
  /** Adds values; throws `quantization_rejected` when one is not finite. */
  observe(values: Float32Array): void;
  range(): RealRange;
}

export function rangeObserver(tensorName: string, method: CalibrationMethod): RangeObserver {
  switch (method.kind) {
    case "minmax":
      return new MinMaxObserver(tensorName);
    case "percentile":
      return new HistogramObserver(tensorName, method.percentile);
  }
}

class MinMaxObserver implements RangeObserver {
  readonly #tensorName: string;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;

  constructor(tensorName: string) {
    this.#tensorName = tensorName;
  }

  observe(values: Float32Array): void {
    const { min, max } = finiteMinMax(values, this.#tensorName);
    this.#min = Math.min(this.#min, min);
    this.#max = Math.max(this.#max, max);
  }

  range(): RealRange {
    return this.#min > this.#max ? { min: 0, max: 0 } : { min: this.#min, max: this.#max };
  }
}

/** Bins of a histogram; its precision is the range divided by at least half of this. */
const BIN_COUNT = 8192;

/**
 * A histogram whose bins are multiples of a width that doubles whenever a value falls outside, neighbours merging
 * exactly, so that one pass suffices and the result does not depend on the order of batches beyond the first width.
 */
class HistogramObserver implements RangeObserver {
  readonly #tensorName: string;
  readonly #percentile: number;
  /** Bin i holds values in [(i - BIN_COUNT / 2) * width, (i + 1 - BIN_COUNT / 2) * width). */
  #bins = new Float64Array(BIN_COUNT);
  #width = 0;
  #count = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;

  constructor(tensorName: string, percentile: number) {
    if (!(percentile > 50 && percentile <= 100)) {
      throw new FieldloopError("invalid_argument", `Calibrate: percentile ${percentile}, wanted (50, 100]`);
    }
    this.#tensorName = tensorName;
    this.#percentile = percentile;
  }

  observe(values: Float32Array): void {
    const { min, max } = finiteMinMax(values, this.#tensorName);
    if (min > max) return;
    this.#min = Math.min(this.#min, min);
    this.#max = Math.max(this.#max, max);
    this.#widenTo(Math.max(-min, max));
    this.#count += values.length;
    const half = BIN_COUNT / 2;
    for (let index = 0; index < values.length; index++) {
      const bin = this.#width === 0 ? half : Math.floor(values[index]! / this.#width) + half;
      this.#bins[bin]!++;
    }
  }

  range(): RealRange {
    if (this.#count === 0) return { min: 0, max: 0 };
    if (this.#width === 0) return { min: 0, max: 0 };
    const cut = (this.#count * (100 - this.#percentile)) / 200;
    const half = BIN_COUNT / 2;
    let low = 0;
    for (let left = 0; low < BIN_COUNT - 1 && left + this.#bins[low]! <= cut; low++) left += this.#bins[low]!;
    let high = BIN_COUNT - 1;
    for (let right = 0; high > 0 && right + this.#bins[high]! <= cut; high--) right += this.#bins[high]!;
    return {
      min: Math.max(this.#min, (low - half) * this.#width),
      max: Math.min(this.#max, (high + 1 - half) * this.#width),
    };
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
      const merged = new Float64Array(BIN_COUNT);
      const half = BIN_COUNT / 2;
      for (let bin = 0; bin < BIN_COUNT; bin++)
        merged[Math.floor((bin - half) / 2) + half]! += this.#bins[bin]!;
      this.#bins = merged;
      this.#width *= 2;
    }
  }
}

function finiteMinMax(values: Float32Array, tensorName: string): RealRange {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < values.length; index++) {
    const value = values[index]!;
    // Written so that NaN, which compares false with everything, is caught too.
    if (!(value >= -3.4e38 && value <= 3.4e38)) {
      throw new FieldloopError(
        "quantization_rejected",
        `Calibrate: tensor "${tensorName}" took the value ${value} on calibration input, not finite`,
      );
    }
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return { min, max };
}
