import { AGENT_LIMITS } from "../../limits.js";
import type { WireFailure } from "../../ipc.js";
import type { ShadowDelta } from "../../ipc-shadow.js";

type Sum =
  | "frames"
  | "compared"
  | "skipped"
  | "failed"
  | "disagreements"
  | "candidateMs"
  | "activeMs"
  | "cpuMs";

const NOTHING: Readonly<Record<Sum, number>> = {
  frames: 0,
  compared: 0,
  skipped: 0,
  failed: 0,
  disagreements: 0,
  candidateMs: 0,
  activeMs: 0,
  cpuMs: 0,
};

/** What happened in a shadow since it was told last. */
export class ShadowTally {
  #sums = { ...NOTHING };
  #flips = new Map<string, [active: string, candidate: string, count: number]>();
  #lastFailure: WireFailure | undefined;
  /** The candidate's last runs, in a ring. */
  readonly #runs: number[] = [];
  #nextRun = 0;

  add(what: Sum, amount = 1): void {
    this.#sums[what] += amount;
  }

  failed(failure: WireFailure): void {
    this.#sums.failed++;
    this.#lastFailure = failure;
  }

  compared(candidateMs: number, activeMs: number): void {
    this.#sums.compared++;
    this.#sums.candidateMs += candidateMs;
    this.#sums.activeMs += activeMs;
    this.#runs[this.#nextRun] = candidateMs;
    this.#nextRun = (this.#nextRun + 1) % AGENT_LIMITS.shadowRunsRemembered;
  }

  flipped(active: string, candidate: string): void {
    const key = `${active}\n${candidate}`;
    const known = this.#flips.get(key);
    if (known) known[2]++;
    else if (this.#flips.size < AGENT_LIMITS.shadowFlipsCounted) this.#flips.set(key, [active, candidate, 1]);
  }

  /** Undefined where nothing happened. */
  take(): ShadowDelta | undefined {
    const sums = this.#sums;
    if (Object.values(sums).every((sum) => sum === 0)) return undefined;
    const delta = {
      ...sums,
      flips: [...this.#flips.values()],
      quickMs: quarterOf(this.#runs),
      lastFailure: this.#lastFailure,
    };
    this.#sums = { ...NOTHING };
    this.#flips = new Map();
    return delta;
  }
}

/** A quarter of the values is at most so large; 0 of none. */
function quarterOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 4)] ?? 0;
}
