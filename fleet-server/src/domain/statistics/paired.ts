import { logEvidenceAbove, proportionBounds } from "./binomial-mixture.js";

/** Labelled disagreements of two versions on the same inputs, by who was right. */
export interface PairedLabels {
  readonly onlyFirstRight: number;
  readonly onlySecondRight: number;
  /** Both right or both wrong: they differ, but neither loses by it. */
  readonly neither: number;
}

/** Inputs that both versions answered, and those on which they disagreed. */
export interface PairedFrames {
  readonly compared: number;
  readonly disagreements: number;
}

/**
 * ln of the evidence against "the second version is right as often as the first" from the inputs on which just one of them was
 * (McNemar 1947 as a bet on each label): of these at most half fall to the first. Inputs on which both agree need no label: they
 * cannot tell the versions apart.
 */
export function pairedEvidence({ onlyFirstRight, onlySecondRight }: PairedLabels, lostShare = 0.5): number {
  return logEvidenceAbove(onlyFirstRight, onlySecondRight, lostShare);
}

/** Parts of a test's error that the bounds of a drop's three factors take; most to the last, which is known least. */
const FRAMES_PART = 0.05;
const LABELS_PART = 0.9;

/**
 * ln of the evidence against "accuracy falls by at most `limit`" from the first version to the second. With a limit above 0, how
 * large a share of the labels that may lose follows from how often the versions disagree at least (error `alpha`, a tenth of it).
 */
export function dropEvidence(
  frames: PairedFrames,
  labels: PairedLabels,
  limit: number,
  alpha: number,
): number {
  if (limit <= 0) return pairedEvidence(labels);
  const told = labels.onlyFirstRight + labels.onlySecondRight;
  const disagree = proportionBounds(frames.disagreements, frames.compared, FRAMES_PART * alpha).low;
  const tell = proportionBounds(told, told + labels.neither, FRAMES_PART * alpha).low;
  const lostShare = Math.min(1, (1 + limit / (disagree * tell)) / 2);
  return Math.log(LABELS_PART) + pairedEvidence(labels, lostShare);
}

/**
 * Confidence sequence of the drop in accuracy from the first version to the second, over all compared inputs: how often they
 * disagree, times how often a label then tells them apart, times how much more often the first wins. Each side's error `alpha` is
 * split over the three. Without a single label it says that accuracy can't differ by more than the versions do.
 */
export function dropBounds(
  frames: PairedFrames,
  labels: PairedLabels,
  alpha: number,
): { value: number | null; low: number; high: number } {
  const told = labels.onlyFirstRight + labels.onlySecondRight;
  const labelled = told + labels.neither;
  const disagree = proportionBounds(frames.disagreements, frames.compared, FRAMES_PART * alpha);
  const tell = proportionBounds(told, labelled, FRAMES_PART * alpha);
  const lost = proportionBounds(labels.onlyFirstRight, told, LABELS_PART * alpha);
  const factor = (net: number, worst: boolean): number =>
    net > 0 === worst ? disagree.high * tell.high * net : disagree.low * tell.low * net;
  const net = (labels.onlyFirstRight - labels.onlySecondRight) / Math.max(labelled, 1);
  return {
    value: labelled === 0 || frames.compared === 0 ? null : (frames.disagreements / frames.compared) * net,
    low: factor(2 * lost.low - 1, false),
    high: factor(2 * lost.high - 1, true),
  };
}

/**
 * How many observations of clustered data weigh as one independent: the variance between devices over that of independent
 * observations, at least 1 (design effect; Kish 1965, Rao and Scott 1992). 1 where fewer than `DEVICES_MIN` devices would have to tell.
 */
export function designEffect(
  devices: readonly { readonly successes: number; readonly count: number }[],
): number {
  const counted = devices.filter(({ count }) => count > 0);
  const count = counted.reduce((sum, device) => sum + device.count, 0);
  const successes = counted.reduce((sum, device) => sum + device.successes, 0);
  const share = successes / Math.max(count, 1);
  if (counted.length < DEVICES_MIN || share <= 0 || share >= 1) return 1;
  const squares = counted.reduce((sum, device) => sum + (device.successes - share * device.count) ** 2, 0);
  const between = (squares * counted.length) / (counted.length - 1) / count ** 2;
  return Math.max(1, between / ((share * (1 - share)) / count));
}

const DEVICES_MIN = 4;
