import { FieldloopError } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";

export interface ProbationTerms {
  readonly seconds: number;
  readonly predictions: number;
}

/** Watches a newly activated version until it may be committed, or must go. */
export class Probation {
  readonly #clock: Clock;
  readonly #terms: ProbationTerms;
  readonly #startedAt: number;
  #predictions = 0;
  #framesFailed = 0;
  #hostCrashes = 0;

  constructor(clock: Clock, terms: ProbationTerms) {
    this.#clock = clock;
    this.#terms = terms;
    this.#startedAt = clock.monotonic();
  }

  notePredictions(count: number): void {
    this.#predictions += count;
  }
  noteFramesFailed(count: number): void {
    this.#framesFailed += count;
  }
  noteHostCrash(): void {
    this.#hostCrashes++;
  }

  get measured(): Record<string, number> {
    return {
      probationMs: Math.round(this.#clock.monotonic() - this.#startedAt),
      predictions: this.#predictions,
      framesFailed: this.#framesFailed,
      hostCrashes: this.#hostCrashes,
    };
  }

  /** True when it may be committed. @throws FieldloopError `probation_failed` when it must go back */
  passed(): boolean {
    const elapsedMs = this.#clock.monotonic() - this.#startedAt;
    if (this.#hostCrashes >= AGENT_LIMITS.probationHostCrashesMax) {
      throw failed(`the host crashed ${this.#hostCrashes} times`);
    }
    const frames = this.#predictions + this.#framesFailed;
    const errorShare = frames === 0 ? 0 : this.#framesFailed / frames;
    if (frames >= AGENT_LIMITS.probationFramesMin && errorShare > AGENT_LIMITS.probationErrorShareMax) {
      throw failed(`${this.#framesFailed} of ${frames} frames failed`);
    }
    const enough = this.#predictions >= this.#terms.predictions;
    if (elapsedMs >= this.#terms.seconds * 1000 && enough) {
      if (errorShare > AGENT_LIMITS.probationErrorShareMax) {
        throw failed(`${this.#framesFailed} of ${frames} frames failed`);
      }
      return true;
    }
    const limitMs = Math.max(
      AGENT_LIMITS.probationTimeoutMinMs,
      this.#terms.seconds * 1000 * AGENT_LIMITS.probationSlack,
    );
    if (elapsedMs > limitMs) {
      throw failed(`${this.#predictions} of ${this.#terms.predictions} predictions in ${limitMs} ms`);
    }
    return false;
  }
}

function failed(what: string): FieldloopError {
  return new FieldloopError("probation_failed", `Probation: ${what}`);
}
