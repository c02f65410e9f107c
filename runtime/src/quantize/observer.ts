import { FieldloopError } from "@fieldloop/protocol";
import { entropyThreshold } from "./entropy.js";
import { AdaptiveHistogram, BIN_COUNT } from "./histogram.js";

/** How calibration turns the values that a tensor takes into a range. */
export type CalibrationMethod =
  | { readonly kind: "minmax" }
  /** Cuts (100 - percentile) / 2 percent of the values on each side; 99.999 suits deep networks. */
  | { readonly kind: "percentile"; readonly percentile: number }
  /** Clips where the 8-bit form loses the least information, see `entropyThreshold`. */
  | { readonly kind: "entropy" };

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
      return new PercentileObserver(tensorName, method.percentile);
    case "entropy":
      return new EntropyObserver(tensorName);
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

abstract class HistogramObserver implements RangeObserver {
  readonly #tensorName: string;
  protected readonly histogram = new AdaptiveHistogram();

  constructor(tensorName: string) {
    this.#tensorName = tensorName;
  }

  observe(values: Float32Array): void {
    const { min, max } = finiteMinMax(values, this.#tensorName);
    this.histogram.add(values, min, max);
  }

  abstract range(): RealRange;
}

class PercentileObserver extends HistogramObserver {
  readonly #percentile: number;

  constructor(tensorName: string, percentile: number) {
    if (!(percentile > 50 && percentile <= 100)) {
      throw new FieldloopError("invalid_argument", `Calibrate: percentile ${percentile}, wanted (50, 100]`);
    }
    super(tensorName);
    this.#percentile = percentile;
  }

  range(): RealRange {
    const { bins, count, width, min, max } = this.histogram;
    if (count === 0 || width === 0) return { min: 0, max: 0 };
    const cut = (count * (100 - this.#percentile)) / 200;
    const half = BIN_COUNT / 2;
    let low = 0;
    for (let left = 0; low < BIN_COUNT - 1 && left + bins[low]! <= cut; low++) left += bins[low]!;
    let high = BIN_COUNT - 1;
    for (let right = 0; high > 0 && right + bins[high]! <= cut; high--) right += bins[high]!;
    return { min: Math.max(min, (low - half) * width), max: Math.min(max, (high + 1 - half) * width) };
  }
}

class EntropyObserver extends HistogramObserver {
  range(): RealRange {
    const { count, width, min, max } = this.histogram;
    if (count === 0 || width === 0) return { min: 0, max: 0 };
    const magnitudes = this.histogram.magnitudes();
    // Zero is exact in any form, so how often it occurs (half of all values behind a Relu) says nothing about clipping.
    magnitudes[0] = Math.min(magnitudes[0]!, magnitudes[1]!);
    const limit = entropyThreshold(magnitudes) * width;
    return { min: Math.max(min, -limit), max: Math.min(max, limit) };
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
