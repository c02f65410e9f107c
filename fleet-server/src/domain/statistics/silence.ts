import { markedEvidence, type Marked } from "./random-labels.js";

/** Silent devices of both arms since the instant that tells most. */
export interface SilenceFound {
  readonly marked: Marked;
  /** Part of the test's error that the instant may spend. */
  readonly share: number;
  /** ln of the evidence against "the canary falls silent no more than control does", `share` taken off. */
  readonly logE: number;
}

/**
 * Silence of two arms from how long each device has not been heard, in one unit with the others. Counted are devices not heard
 * since an instant; instants are 0, 1, 3, 7, 15 … times `unit` after the beginning, each looked at from `unit` later on. Of those
 * silent since an instant devices only ever return, so each count's test is valid at all its looks (`markedEvidence`); instant j may
 * spend 4 / ((j + 4) (j + 5)) of the error, which sums to 1. Late, only those are left that fell silent early and for good: few
 * devices of a healthy arm, all of those that a version has killed.
 */
export function findSilence(
  canary: readonly number[],
  control: readonly number[],
  elapsed: number,
  unit: number,
): SilenceFound {
  let best: SilenceFound | undefined;
  for (let instant = 0; ; instant++) {
    const since = unit * (2 ** instant - 1);
    if (best && since + unit > elapsed) return best;
    const marks = (arm: readonly number[]): Marked["canary"] => ({
      marked: arm.filter((silent) => silent >= unit && elapsed - silent <= since).length,
      devices: arm.length,
    });
    const marked = { canary: marks(canary), control: marks(control) };
    const share = shareOfInstant(instant);
    const logE = markedEvidence(marked) + Math.log(share);
    // Of equals the later: it holds more devices.
    if (!best || logE >= best.logE) best = { marked, share, logE };
  }
}

export function shareOfInstant(instant: number): number {
  return 4 / ((instant + 4) * (instant + 5));
}
