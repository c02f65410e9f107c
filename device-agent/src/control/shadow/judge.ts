import { FieldloopError } from "@fieldloop/protocol";
import type { ShadowTerms } from "../../ipc-shadow.js";
import { AGENT_LIMITS } from "../../limits.js";
import type { ShadowTotals } from "./totals.js";

/** How a shadow stands. */
export interface ShadowProgress {
  readonly elapsedMs: number;
  readonly totals: Pick<
    ShadowTotals,
    "frames" | "compared" | "failed" | "quickMs" | "activeMeanMs" | "lastFailure"
  >;
  /** Threads that the active version runs with; the candidate has one. */
  readonly activeThreads: number;
}

/**
 * True when the candidate has been seen enough. Whether it is the better one is the server's to judge, from all devices and with labels; here it
 * fails only by what would do harm once it is active: frames that it cannot answer, and runs that are far too slow.
 * @throws FieldloopError `shadow_failed`; `timed_out` where too few frames came
 */
export function judgeShadow(terms: ShadowTerms, progress: ShadowProgress): boolean {
  const { elapsedMs, totals } = progress;
  const { shadowFramesMin, shadowTimeoutMinMs, shadowSlack } = AGENT_LIMITS;
  const isOver = elapsedMs >= terms.seconds * 1000 && totals.compared >= terms.predictions;
  if (isOver || totals.compared + totals.failed >= shadowFramesMin) {
    checkErrors(totals);
    checkLatency(progress);
  }
  if (isOver) return true;
  const limitMs = Math.max(shadowTimeoutMinMs, terms.seconds * 1000 * shadowSlack);
  // Frames that all fail are seen too, if there are fewer than would decide it early.
  if (elapsedMs > limitMs) {
    checkErrors(totals);
    throw new FieldloopError(
      "timed_out",
      `Shadow: ${totals.compared} of ${terms.predictions} frames were compared in ${limitMs} ms`,
    );
  }
  return false;
}

function checkErrors({ compared, failed, lastFailure }: ShadowProgress["totals"]): void {
  const shown = compared + failed;
  if (shown === 0 || failed / shown <= AGENT_LIMITS.shadowErrorShareMax) return;
  const why = lastFailure ? ` (${lastFailure.code}: ${lastFailure.message})` : "";
  throw new FieldloopError(
    "shadow_failed",
    `Shadow: the candidate failed on ${failed} of ${shown} frames${why}`,
  );
}

/**
 * On one thread and behind everything else its mean says little; a quarter of its runs had nothing in their way. It is too slow where even these
 * take many times what the active version takes, and more than the source leaves for a frame.
 */
function checkLatency({ elapsedMs, totals, activeThreads }: ShadowProgress): void {
  const { quickMs, activeMeanMs, compared, frames } = totals;
  if (compared < AGENT_LIMITS.shadowFramesMin) return;
  const intervalMs = elapsedMs / Math.max(1, frames);
  const budgetMs = activeThreads * Math.max(AGENT_LIMITS.shadowLatencyFactor * activeMeanMs, intervalMs);
  if (quickMs <= budgetMs) return;
  const [took, active, budget] = [quickMs, activeMeanMs, budgetMs].map((ms) => ms.toFixed(1));
  throw new FieldloopError(
    "shadow_failed",
    `Shadow: the candidate takes ${took} ms a frame, at most ${budget} ms are left (the active version takes ${active} ms)`,
  );
}
