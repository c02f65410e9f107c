import { AGENT_LIMITS } from "../limits.js";

/** What one model takes of a thread that it shares. */
export interface ThreadShare {
  /** Runs a second. */
  readonly rate: number;
  /** Milliseconds of a run. */
  readonly runMs: number;
  /** False of one that carries something from frame to frame: it would be lost on the way. */
  readonly mayLeave: boolean;
}

/** A thread that never waits makes others wait for ever: what the formula says close to it is no measure. */
const BUSY_MAX = 0.95;

/**
 * The place of the model that a thread of its own is worth most; undefined where none is. In a thread that is busy for a share ρ of the time
 * a model of λ runs a second of r milliseconds makes each run of another one wait for λr² / 2(1 − ρ) on average (A. Khintchine, 1932:
 * a queue with one server and arrivals at random). In a thread of its own each of its own runs takes `betweenThreadsMs` longer instead.
 */
export function whoLeaves(shares: readonly ThreadShare[]): number | undefined {
  const busy = shares.reduce((sum, { rate, runMs }) => sum + (rate * runMs) / 1_000, 0);
  const idle = 1 - Math.min(busy, BUSY_MAX);
  const rates = shares.reduce((sum, { rate }) => sum + rate, 0);
  let leaves: number | undefined;
  let savedMost = 0;
  shares.forEach(({ rate, runMs, mayLeave }, at) => {
    const waitedFor = ((rates - rate) * rate * (runMs * runMs)) / (2 * idle) / 1_000;
    const saved = waitedFor - rate * AGENT_LIMITS.betweenThreadsMs;
    if (!mayLeave || !(saved > savedMost)) return;
    savedMost = saved;
    leaves = at;
  });
  return leaves;
}
