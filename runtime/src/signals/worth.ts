import { HISTOGRAM_BINS, SIGNALS, quantize, type SignalName } from "@fieldloop/protocol";
import type { Baseline } from "../profile/baseline.js";
import type { SignalValues } from "./compute.js";

/** How much of a score comes from its rank in the baseline; the rest orders what lies beyond the baseline's end. */
const RANK_SHARE = 0.7;
/** A broken rule or a full disagreement removes this share of what is left to 1. */
const ASSERTION_SHARE = 0.8;

/**
 * How much a look at this prediction promises, 0..1: the order in which a device spends its sample budget.
 *
 * Two groups of signals are scored and averaged: doubt (margin and entropy) and strangeness (novelty, else the
 * reconstruction error). On a mixed stream that mean beat every single score. With a baseline, the score of a signal is
 * its surprise: the logarithm of the share of validation predictions at least as bad (Fisher's way to combine tail
 * probabilities), over the largest surprise that the baseline can show. Without one it is the signal's place on its
 * scale. `disagreement` and `rule` raise the whole: they point at errors that the model itself does not doubt.
 */
export function predictionWorth(signals: SignalValues, confidence: number, baseline?: Baseline): number {
  const doubt = meanOf([scoreOf("margin", signals, baseline), scoreOf("entropy", signals, baseline)]);
  const strangeness = scoreOf("novelty", signals, baseline) ?? scoreOf("reconstruction", signals, baseline);
  const worth = meanOf([doubt ?? 1 - confidence, strangeness])!;
  const asserted =
    (1 - ASSERTION_SHARE * fraction(signals.disagreement)) * (1 - ASSERTION_SHARE * fraction(signals.rule));
  return 1 - (1 - fraction(worth)) * asserted;
}

function scoreOf(
  name: SignalName,
  signals: SignalValues,
  baseline: Baseline | undefined,
): number | undefined {
  const value = signals[name];
  if (value === undefined || Number.isNaN(value)) return undefined;
  const histogram = baseline?.statistics.signals[name];
  const position = badness(name, value);
  return histogram === undefined
    ? position
    : RANK_SHARE * surprise(name, value, histogram) + (1 - RANK_SHARE) * position;
}

/**
 * -ln(tail) / ln(n + 1), 0..1, where tail is the share of the baseline's n predictions in this bin or a worse one. One
 * is added to both counts, so that nothing is infinitely surprising.
 */
function surprise(name: SignalName, value: number, histogram: readonly number[]): number {
  const bin = quantize(value, SIGNALS[name].scale) >> Math.log2(256 / HISTOGRAM_BINS);
  const high = SIGNALS[name].worse === "high";
  let total = 0;
  let tail = 0;
  histogram.forEach((count, at) => {
    total += count;
    if (high ? at >= bin : at <= bin) tail += count;
  });
  return total === 0 ? 0 : -Math.log((tail + 1) / (total + 1)) / Math.log(total + 1);
}

/** Place on the signal's scale, 0 at its good end and 1 at its bad end. */
function badness(name: SignalName, value: number): number {
  const unit = quantize(value, SIGNALS[name].scale) / 255;
  return SIGNALS[name].worse === "high" ? unit : 1 - unit;
}

function meanOf(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function fraction(value: number | undefined): number {
  return value === undefined || !(value > 0) ? 0 : Math.min(value, 1);
}
