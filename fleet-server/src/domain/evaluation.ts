import type { Evaluation, EvaluationResult } from "@fieldloop/protocol";
import { discordantPValue, wilson } from "./intervals.js";

/** One labelled input and what both versions said, as indices into the labels; -1 where a version knows no such label. */
export interface JudgedInput {
  readonly truth: number;
  readonly base: number;
  readonly candidate: number;
}

export interface VersionUnderTest {
  readonly version: number;
  readonly variant: string;
}

export type EvaluationSlice = Evaluation["slices"][number];

/** Old accuracy may fall by this much at most, 0..1. */
export const OLD_ACCURACY_DROP_MAX = 0.01;
/** Below it the paired test calls a loss no accident. */
export const PAIRED_P_VALUE = 0.05;
/** Judged inputs below which a slice proves nothing. */
export const SLICE_INPUTS_MIN = 5;

/** Both versions on the same inputs, with what only one of them got right. */
export function compareOnSlice(
  slice: string,
  labels: readonly string[],
  inputs: readonly JudgedInput[],
  base: VersionUnderTest,
  candidate: VersionUnderTest,
): EvaluationSlice {
  const right = (said: (input: JudgedInput) => number) => (input: JudgedInput) => said(input) === input.truth;
  const baseRight = right((input) => input.base);
  const candidateRight = right((input) => input.candidate);
  return {
    slice,
    base: evaluate(
      base,
      labels,
      inputs.map(({ truth, base: said }) => ({ truth, said })),
    ),
    candidate: evaluate(
      candidate,
      labels,
      inputs.map(({ truth, candidate: said }) => ({ truth, said })),
    ),
    onlyBaseRight: inputs.filter((input) => baseRight(input) && !candidateRight(input)).length,
    onlyCandidateRight: inputs.filter((input) => !baseRight(input) && candidateRight(input)).length,
  };
}

/** Accuracy, recall and precision per class with Wilson intervals, and the confusion matrix (rows truth, columns prediction). */
export function evaluate(
  { version, variant }: VersionUnderTest,
  labels: readonly string[],
  pairs: readonly { readonly truth: number; readonly said: number }[],
): EvaluationResult {
  const confusion = labels.map(() => labels.map(() => 0));
  let successes = 0;
  for (const { truth, said } of pairs) {
    if (truth === said) successes++;
    const row = confusion[truth];
    if (row && said >= 0 && said < labels.length) row[said]!++;
  }
  const perClass = labels.map((label, at) => {
    const hit = confusion[at]![at]!;
    const ofTruth = pairs.filter(({ truth }) => truth === at).length;
    const ofSaid = pairs.filter(({ said }) => said === at).length;
    return {
      label,
      recall: wilson({ successes: hit, count: ofTruth }),
      precision: wilson({ successes: hit, count: ofSaid }),
    };
  });
  return { version, variant, accuracy: wilson({ successes, count: pairs.length }), perClass, confusion };
}

/**
 * Passed where the candidate is not worse on the field slice (paired sign test, and not lower in plain count beyond it) and old
 * accuracy falls by at most a point. Every reason, good or bad, is listed with its numbers.
 */
export function judgeEvaluation(slices: readonly EvaluationSlice[]): Pick<Evaluation, "verdict" | "reasons"> {
  const findings = [
    fieldFinding(slices.find(({ slice }) => slice === "field")),
    oldFinding(slices.find(({ slice }) => slice === "old")),
  ];
  return {
    verdict: findings.every(({ passed }) => passed) ? "passed" : "failed",
    reasons: findings.map(({ reason }) => reason),
  };
}

interface Finding {
  readonly passed: boolean;
  readonly reason: string;
}

function fieldFinding(slice: EvaluationSlice | undefined): Finding {
  const count = slice?.candidate.accuracy.count ?? 0;
  if (!slice || count < SLICE_INPUTS_MIN) {
    return {
      passed: false,
      reason: `field: ${count} labelled samples kept out of training, wanted ${SLICE_INPUTS_MIN}`,
    };
  }
  const { onlyBaseRight, onlyCandidateRight } = slice;
  const pValue = discordantPValue(onlyBaseRight, onlyCandidateRight);
  const worse = onlyBaseRight > onlyCandidateRight && pValue < PAIRED_P_VALUE;
  return {
    passed: !worse,
    reason: `field: ${shares(slice)}; only the base right on ${onlyBaseRight}, only the candidate on ${onlyCandidateRight} (p ${pValue.toPrecision(2)} for worse): ${worse ? "worse" : "not worse"}`,
  };
}

function oldFinding(slice: EvaluationSlice | undefined): Finding {
  if (!slice || slice.base.accuracy.count === 0) {
    return { passed: true, reason: "old: no holdout travels with the base version; not compared" };
  }
  const drop = (slice.base.accuracy.value ?? 0) - (slice.candidate.accuracy.value ?? 0);
  const passed = drop <= OLD_ACCURACY_DROP_MAX + 1e-9;
  return {
    passed,
    reason: `old: ${shares(slice)}; drop ${(100 * drop).toFixed(2)} points, at most ${100 * OLD_ACCURACY_DROP_MAX}`,
  };
}

function shares({ base, candidate }: EvaluationSlice): string {
  const text = (result: EvaluationResult): string => `${(100 * (result.accuracy.value ?? 0)).toFixed(1)} %`;
  return `${text(base)} → ${text(candidate)} on ${candidate.accuracy.count}`;
}
