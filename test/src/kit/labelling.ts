import { differenceEvidence, pairedEvidence } from "@fieldloop/fleet-server";
import type { Random } from "@fieldloop/runtime/simulate";
import { pooledZ, Z_ONE_SIDED } from "./peeking.js";

/**
 * How many labels it takes to see that a candidate is worse. Every frame may be answered by both versions (shadow), but a label
 * costs a person's time.
 */

/** Shares of frames by who is right. */
export interface Versions {
  readonly onlyActiveRight: number;
  readonly onlyCandidateRight: number;
  /** Both wrong, and differently: a disagreement whose label tells nothing. */
  readonly bothWrongApart: number;
  readonly bothWrongAlike: number;
}

/** One point worse: 95.5 % to 94.5 %. */
export const ONE_POINT_WORSE: Versions = {
  onlyActiveRight: 0.025,
  onlyCandidateRight: 0.015,
  bothWrongApart: 0.004,
  bothWrongAlike: 0.026,
};
export const AS_GOOD: Versions = { ...ONE_POINT_WORSE, onlyActiveRight: 0.02, onlyCandidateRight: 0.02 };

export interface Labelled {
  /** Labels until it stopped, all of `labelsMax` where it did not. */
  readonly labels: number;
  readonly stopped: boolean;
}

export type Labelling = (random: Random, versions: Versions, alpha: number, labelsMax: number) => Labelled;

/** Both versions see the same frames, only disagreements are labelled, every label is looked at. */
export const labelDisagreements: Labelling = (random, versions, alpha, labelsMax) =>
  followDisagreements(
    random,
    versions,
    labelsMax,
    (onlyFirstRight, onlySecondRight) =>
      pairedEvidence({ onlyFirstRight, onlySecondRight, neither: 0 }) >= -Math.log(alpha),
  );

/** The same labels, but McNemar's test for a sample of fixed size at every look. */
export const labelDisagreementsNaively: Labelling = (random, versions, _, labelsMax) =>
  followDisagreements(
    random,
    versions,
    labelsMax,
    (lost, won) => lost + won >= NAIVE_LABELS_MIN && (lost - won) / Math.sqrt(lost + won) > Z_ONE_SIDED,
  );

/** From so few labels on, a normal approximation is usually taken as good enough. */
const NAIVE_LABELS_MIN = 10;

function followDisagreements(
  random: Random,
  { onlyActiveRight, onlyCandidateRight, bothWrongApart }: Versions,
  labelsMax: number,
  stops: (lost: number, won: number) => boolean,
): Labelled {
  const disagreements = onlyActiveRight + onlyCandidateRight + bothWrongApart;
  let lost = 0;
  let won = 0;
  for (let labels = 1; labels <= labelsMax; labels++) {
    const at = random.uniform() * disagreements;
    if (at >= onlyActiveRight + onlyCandidateRight) continue;
    if (at < onlyActiveRight) lost++;
    else won++;
    if (stops(lost, won)) return { labels, stopped: true };
  }
  return { labels: labelsMax, stopped: false };
}

/** Labels of one look of the unpaired tests, half of them on each version's own frames. */
const BLOCK = 50;

/** Each version on frames of its own, all of them labelled; valid at every look. */
export const labelBothArms: Labelling = (random, versions, alpha, labelsMax) =>
  followArms(
    random,
    versions,
    labelsMax,
    (active, candidate) => differenceEvidence(active, candidate, 0, 0.02) >= -Math.log(alpha),
  );

/** The same labels, but the z-test for a sample of fixed size at every look. */
export const labelBothArmsNaively: Labelling = (random, versions, _, labelsMax) =>
  followArms(random, versions, labelsMax, (active, candidate) => pooledZ(active, candidate) > Z_ONE_SIDED);

interface Counts {
  successes: number;
  count: number;
}

function followArms(
  random: Random,
  versions: Versions,
  labelsMax: number,
  stops: (active: Counts, candidate: Counts) => boolean,
): Labelled {
  const bothWrong = versions.bothWrongApart + versions.bothWrongAlike;
  const active = { successes: 0, count: 0 };
  const candidate = { successes: 0, count: 0 };
  const label = (arm: Counts, wrong: number): void => {
    arm.count++;
    if (random.uniform() >= wrong) arm.successes++;
  };
  for (let labels = BLOCK; labels <= labelsMax; labels += BLOCK) {
    for (let at = 0; at < BLOCK / 2; at++) {
      label(active, bothWrong + versions.onlyCandidateRight);
      label(candidate, bothWrong + versions.onlyActiveRight);
    }
    if (stops(active, candidate)) return { labels, stopped: true };
  }
  return { labels: labelsMax, stopped: false };
}

/** Labels of both arms together that the z-test needs, looked at once, to find the difference with `power` 0.8. */
export function labelsOfFixedTest({
  onlyActiveRight,
  onlyCandidateRight,
  bothWrongApart,
  bothWrongAlike,
}: Versions): number {
  const bothWrong = bothWrongApart + bothWrongAlike;
  const variance = [bothWrong + onlyCandidateRight, bothWrong + onlyActiveRight].reduce(
    (sum, wrong) => sum + wrong * (1 - wrong),
    0,
  );
  return (2 * (Z_ONE_SIDED + Z_POWER) ** 2 * variance) / (onlyActiveRight - onlyCandidateRight) ** 2;
}

/** Standard normal quantile of 0.8. */
const Z_POWER = 0.8416212335729143;
