import type { GateTest } from "@fieldloop/protocol";
import type { ShadowCounts } from "./gate-evidence.js";
import { alphaOf } from "./gate-budget.js";
import type { GateContext } from "./gate-arms.js";
import { confidence, count, line, percent, points, proves } from "./gate-lines.js";
import { logEvidenceAbove, proportionBounds } from "./statistics/binomial-mixture.js";
import { designEffect, dropBounds, dropEvidence } from "./statistics/paired.js";

/** A drop of this much is no reason to wait for labels where `accuracyDropMax` is left out. */
const TOLERANCE = 0.02;

export function isShadowed({ canary }: GateContext): boolean {
  return canary.some(({ shadow }) => shadow !== null && shadow.compared > 0);
}

/** How often candidate and active version disagree on the same frames. */
export function shadowDisagreement(context: GateContext): GateTest {
  const { settings, evidence } = context;
  const limit = settings.shadowDisagreementMax!;
  const counts = shadowsOf(context);
  const { compared, disagreements } = framesOf(counts);
  const alpha = alphaOf("shadow_disagreement", settings, evidence.wave);
  const logE = logEvidenceAbove(disagreements, compared - disagreements, limit);
  const { low, high } = proportionBounds(disagreements, compared, alpha);
  const value = disagreements / compared;
  const passes = high <= limit || (!settings.passByProof && value <= limit);
  return line(
    "shadow_disagreement",
    proves(logE, alpha) ? "fail" : passes ? "pass" : "inconclusive",
    `the versions disagree on ${told(counts)}: ${percent(low)} to ${percent(high)} with ${confidence(alpha)}; at most ${percent(limit)} allowed`,
    { value, limit, low, high, alpha, logE },
  );
}

/**
 * Which version is right where they disagree, by labels. Only disagreements are labelled: elsewhere both are right or both are
 * wrong, and no label could tell them apart. Fails where the candidate is proven worse by more than `shadowDropMax`; passes where
 * it is proven not to be worse by more than `accuracyDropMax`, for which few disagreements are enough without any label, or where
 * nothing speaks against it after `shadowLabelsMin` labels.
 */
export function shadowLabels(context: GateContext): GateTest {
  const { settings, evidence } = context;
  const limit = settings.shadowDropMax!;
  const counts = shadowsOf(context);
  const alpha = alphaOf("shadow_labels", settings, evidence.wave);
  const frames = framesOf(counts);
  const labels = labelsOf(counts);
  const { value, low, high } = dropBounds(frames, labels, alpha);
  const logE = dropEvidence(frames, labels, limit, alpha);
  const tolerance = Math.max(settings.accuracyDropMax ?? TOLERANCE, limit);
  const labelled = sum(
    counts,
    ({ labelled: by }) => by.bothRight + by.onlyActiveRight + by.onlyCandidateRight + by.bothWrong,
  );
  const wanted = Math.min(
    settings.shadowLabelsMin,
    sum(counts, ({ disagreements }) => disagreements),
  );
  const harmless = high <= tolerance;
  const unsuspected = !settings.passByProof && labelled >= wanted && (value ?? 0) <= tolerance;
  const byWhom = `${count(sum(counts, ({ labelled: by }) => by.onlyActiveRight))} times only the active version was right, ${count(sum(counts, ({ labelled: by }) => by.onlyCandidateRight))} times only the candidate`;
  return line(
    "shadow_labels",
    proves(logE, alpha) ? "fail" : harmless || unsuspected ? "pass" : "inconclusive",
    `the versions disagree on ${told(counts)}, ${count(labelled)} labelled (${wanted} wanted): ${byWhom}; accuracy lower by ${points(low)} to ${points(high)} with ${confidence(alpha)}; at most ${points(limit)} allowed`,
    { value, limit, low, high, alpha, logE },
  );
}

function shadowsOf({ canary }: GateContext): ShadowCounts[] {
  return canary.flatMap(({ shadow }) => (shadow !== null && shadow.compared > 0 ? shadow : []));
}

/** Frames of one device are alike: all counts are divided by how much more devices differ than independent frames would. */
function framesOf(counts: readonly ShadowCounts[]): { compared: number; disagreements: number } {
  const effect = designEffect(
    counts.map(({ compared, disagreements }) => ({ successes: disagreements, count: compared })),
  );
  return {
    compared: sum(counts, ({ compared }) => compared) / effect,
    disagreements: sum(counts, ({ disagreements }) => disagreements) / effect,
  };
}

function labelsOf(counts: readonly ShadowCounts[]) {
  const effect = designEffect(
    counts.map(({ labelled: { onlyActiveRight, onlyCandidateRight } }) => ({
      successes: onlyActiveRight,
      count: onlyActiveRight + onlyCandidateRight,
    })),
  );
  return {
    onlyFirstRight: sum(counts, ({ labelled }) => labelled.onlyActiveRight) / effect,
    onlySecondRight: sum(counts, ({ labelled }) => labelled.onlyCandidateRight) / effect,
    neither: sum(counts, ({ labelled }) => labelled.bothRight + labelled.bothWrong) / effect,
  };
}

function told(counts: readonly ShadowCounts[]): string {
  return `${count(sum(counts, ({ disagreements }) => disagreements))} of ${count(sum(counts, ({ compared }) => compared))} shadowed frames`;
}

function sum(counts: readonly ShadowCounts[], read: (counts: ShadowCounts) => number): number {
  return counts.reduce((total, one) => total + read(one), 0);
}
