import { z } from "zod";
import { countSchema, modelNameSchema, timeSchema, versionSchema } from "../names.js";
import { SIGNAL_NAMES } from "../signals.js";
import { deliveryShape } from "./delivery.js";

/** Histograms count 8-bit codes in 64 equal bins (`code >> 2`), so two of them merge by addition on any machine. */
export const HISTOGRAM_BINS = 64;
export const histogramSchema = z.array(countSchema).length(HISTOGRAM_BINS);

/** Mergeable statistics of the predictions of one version; a Baseline is the same over validation data. */
export const profileStatisticsSchema = z.object({
  count: countSchema,
  /** Predictions per class; index 0 counts "none". */
  classes: z.array(countSchema).max(10_001),
  confidence: histogramSchema,
  latency: histogramSchema,
  signals: z.partialRecord(z.enum(SIGNAL_NAMES), histogramSchema),
  /** Sum and sum of squares of the confidence, for means without binning. */
  confidenceSum: z.number(),
  confidenceSquareSum: z.number(),
});
export type ProfileStatistics = z.output<typeof profileStatisticsSchema>;

export const profileSchema = z.object({
  ...deliveryShape,
  model: modelNameSchema,
  version: versionSchema,
  from: timeSchema,
  to: timeSchema,
  statistics: profileStatisticsSchema,
  framesDropped: countSchema,
  framesFailed: countSchema,
});
export type Profile = z.output<typeof profileSchema>;

export function emptyStatistics(): ProfileStatistics {
  const bins = (): number[] => new Array<number>(HISTOGRAM_BINS).fill(0);
  return {
    count: 0,
    classes: [],
    confidence: bins(),
    latency: bins(),
    signals: {},
    confidenceSum: 0,
    confidenceSquareSum: 0,
  };
}

/** The statistics of both windows together. */
export function mergeStatistics(a: ProfileStatistics, b: ProfileStatistics): ProfileStatistics {
  const names = new Set([...Object.keys(a.signals), ...Object.keys(b.signals)]) as Set<
    keyof ProfileStatistics["signals"]
  >;
  return {
    count: a.count + b.count,
    classes: add(a.classes, b.classes),
    confidence: add(a.confidence, b.confidence),
    latency: add(a.latency, b.latency),
    signals: Object.fromEntries(
      [...names].map((name) => [name, add(a.signals[name] ?? [], b.signals[name] ?? [])]),
    ),
    confidenceSum: a.confidenceSum + b.confidenceSum,
    confidenceSquareSum: a.confidenceSquareSum + b.confidenceSquareSum,
  };
}

function add(a: readonly number[], b: readonly number[]): number[] {
  return Array.from(
    { length: Math.max(a.length, b.length) },
    (_, index) => (a[index] ?? 0) + (b[index] ?? 0),
  );
}
