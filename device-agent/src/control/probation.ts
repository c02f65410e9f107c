import { FieldloopError } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";

export interface ProbationTerms {
  readonly seconds: number;
  readonly predictions: number;
}

/** What the host says at this moment. */
export interface ProbationSight {
  /** The candidate's session is the one that answers. */
  readonly runs: boolean;
  /** What its maker allows for a run on this device; undefined where nobody says. */
  readonly latencyMsMax: number | undefined;
}

/** Watches a newly activated version until it may be committed, or must go: failed frames, crashes, memory, latency, and silence. */
export class Probation {
  readonly #clock: Clock;
  readonly #terms: ProbationTerms;
  readonly #startedAt: number;
  #predictions = 0;
  #latencyMs = 0;
  #framesFailed = 0;
  #hostCrashes = 0;
  #memoryExceeded = 0;

  constructor(clock: Clock, terms: ProbationTerms) {
    this.#clock = clock;
    this.#terms = terms;
    this.#startedAt = clock.monotonic();
  }

  /** @param latencyMs of all of them together; undefined where nobody measured it */
  notePredictions(count: number, latencyMs: number | undefined): void {
    this.#predictions += count;
    this.#latencyMs += latencyMs ?? 0;
  }
  noteFramesFailed(count: number): void {
    this.#framesFailed += count;
  }
  noteHostCrash(): void {
    this.#hostCrashes++;
  }
  noteMemoryExceeded(): void {
    this.#memoryExceeded++;
  }

  get measured(): Record<string, number> {
    return {
      probationMs: Math.round(this.#clock.monotonic() - this.#startedAt),
      predictions: this.#predictions,
      framesFailed: this.#framesFailed,
      hostCrashes: this.#hostCrashes,
      ...(this.#latencyMs > 0 ? { meanLatencyMs: this.#meanLatencyMs } : {}),
    };
  }

  get #meanLatencyMs(): number {
    return this.#predictions === 0 ? 0 : this.#latencyMs / this.#predictions;
  }

  /** True when it may be committed. @throws FieldloopError `probation_failed` when it must go back */
  passed({ runs, latencyMsMax }: ProbationSight): boolean {
    const elapsedMs = this.#clock.monotonic() - this.#startedAt;
    if (this.#hostCrashes >= AGENT_LIMITS.probationHostCrashesMax) {
      throw failed(`the host crashed ${this.#hostCrashes} times`);
    }
    if (this.#memoryExceeded > 0) throw failed("the host exceeded its memory ceiling");
    const { seconds, predictions } = this.#terms;
    const enough = this.#predictions >= predictions && elapsedMs >= seconds * 1000;
    const isMany = this.#predictions + this.#framesFailed >= AGENT_LIMITS.probationFramesMin;
    if (enough || isMany) this.#judge(latencyMsMax);
    if (enough && runs) return true;
    const limitMs = Math.max(
      AGENT_LIMITS.probationTimeoutMinMs,
      seconds * 1000 * AGENT_LIMITS.probationSlack,
    );
    if (elapsedMs <= limitMs) return false;
    throw failed(
      `${this.#predictions} of ${predictions} predictions in ${limitMs} ms${runs ? "" : ", and the host does not run it"}`,
    );
  }

  /** What a few frames cannot say. */
  #judge(latencyMsMax: number | undefined): void {
    const frames = this.#predictions + this.#framesFailed;
    if (frames > 0 && this.#framesFailed / frames > AGENT_LIMITS.probationErrorShareMax) {
      throw failed(`${this.#framesFailed} of ${frames} frames failed`);
    }
    const allowedMs = (latencyMsMax ?? Number.POSITIVE_INFINITY) * AGENT_LIMITS.probationLatencySlack;
    if (this.#predictions >= AGENT_LIMITS.probationFramesMin && this.#meanLatencyMs > allowedMs) {
      throw failed(
        `a prediction takes ${this.#meanLatencyMs.toFixed(2)} ms on average, ${allowedMs} ms are allowed`,
      );
    }
  }
}

function failed(what: string): FieldloopError {
  return new FieldloopError("probation_failed", `Probation: ${what}`);
}
