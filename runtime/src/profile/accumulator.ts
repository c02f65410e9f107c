import {
  CONFIDENCE_SCALE,
  HISTOGRAM_BINS,
  LATENCY_SCALE,
  SIGNALS,
  emptyStatistics,
  quantize,
  type ColumnScale,
  type ProfileStatistics,
  type SignalName,
} from "@fieldloop/protocol";

/** What a profile counts of a prediction. */
export interface ProfiledPrediction {
  readonly class: number;
  readonly confidence: number;
  readonly latencyMs: number;
  readonly signals: Readonly<Partial<Record<SignalName, number>>>;
}

/** Bits of an 8-bit code that are within one histogram bin. */
const BIN_SHIFT = Math.log2(256 / HISTOGRAM_BINS);

/** The histogram bin of a value: the codes that travel in batches, by fours. */
export function histogramBin(value: number, scale: ColumnScale): number {
  return quantize(value, scale) >> BIN_SHIFT;
}

/** Counts predictions into the statistics of one window, in constant memory. */
export class ProfileAccumulator {
  #statistics: ProfileStatistics = emptyStatistics();

  get count(): number {
    return this.#statistics.count;
  }

  /** A signal that is absent or not a number is not counted. */
  add(prediction: ProfiledPrediction): void {
    const statistics = this.#statistics;
    statistics.count++;
    const classIndex = prediction.class + 1;
    while (statistics.classes.length <= classIndex) statistics.classes.push(0);
    statistics.classes[classIndex]!++;
    statistics.confidence[histogramBin(prediction.confidence, CONFIDENCE_SCALE)]!++;
    statistics.latency[histogramBin(prediction.latencyMs, LATENCY_SCALE)]!++;
    statistics.confidenceSum += prediction.confidence;
    statistics.confidenceSquareSum += prediction.confidence ** 2;
    for (const [name, value] of Object.entries(prediction.signals) as [SignalName, number | undefined][]) {
      if (value === undefined || Number.isNaN(value)) continue;
      const histogram = (statistics.signals[name] ??= new Array<number>(HISTOGRAM_BINS).fill(0));
      histogram[histogramBin(value, SIGNALS[name].scale)]!++;
    }
  }

  /** A copy of what was counted so far. */
  snapshot(): ProfileStatistics {
    return structuredClone(this.#statistics);
  }

  /** Hands over the window and starts the next one. */
  take(): ProfileStatistics {
    const taken = this.#statistics;
    this.#statistics = emptyStatistics();
    return taken;
  }
}
