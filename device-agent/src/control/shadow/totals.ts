import { LIMITS, type ShadowEvent } from "@fieldloop/protocol";
import type { WireFailure } from "../../ipc.js";
import type { ShadowDelta } from "../../ipc-shadow.js";
import { AGENT_LIMITS } from "../../limits.js";

/** Who stands beside whom. */
export type ShadowPair = Pick<ShadowEvent, "deployment" | "model" | "version" | "packageSha256" | "against">;

/** All that a shadow came to since its begin, over every host and every process of the candidate. */
export class ShadowTotals {
  frames = 0;
  compared = 0;
  skipped = 0;
  failed = 0;
  disagreements = 0;
  /** Of the candidate's last runs a quarter took at most so long; 0 before the first. */
  quickMs = 0;
  lastFailure: WireFailure | undefined;
  #candidateMs = 0;
  #activeMs = 0;
  #cpuMs = 0;
  readonly #flips = new Map<string, [active: string, candidate: string, count: number]>();

  add(delta: ShadowDelta): void {
    this.frames += delta.frames;
    this.compared += delta.compared;
    this.skipped += delta.skipped;
    this.failed += delta.failed;
    this.disagreements += delta.disagreements;
    this.#candidateMs += delta.candidateMs;
    this.#activeMs += delta.activeMs;
    this.#cpuMs += delta.cpuMs;
    if (delta.quickMs > 0) this.quickMs = delta.quickMs;
    this.lastFailure = delta.lastFailure ?? this.lastFailure;
    for (const [active, candidate, count] of delta.flips) this.#addFlip(active, candidate, count);
  }

  get candidateMeanMs(): number {
    return this.compared === 0 ? 0 : this.#candidateMs / this.compared;
  }
  get activeMeanMs(): number {
    return this.compared === 0 ? 0 : this.#activeMs / this.compared;
  }

  /** Share of all cores' time. */
  cpuShare(elapsedMs: number, cores: number): number {
    return elapsedMs <= 0 ? 0 : this.#cpuMs / (elapsedMs * cores);
  }

  event(
    pair: ShadowPair,
    time: { readonly from: number; readonly to: number; readonly cpuShare: number },
  ): ShadowEvent {
    const { frames, compared, skipped, failed, disagreements, candidateMeanMs, activeMeanMs } = this;
    const counts = { frames, compared, skipped, failed, disagreements, candidateMeanMs, activeMeanMs };
    return { type: "shadow", ...pair, ...time, ...counts, classFlips: this.#mostFrequentFlips() };
  }

  #addFlip(active: string, candidate: string, count: number): void {
    const key = `${active}\n${candidate}`;
    const known = this.#flips.get(key);
    if (known) known[2] += count;
    else if (this.#flips.size < AGENT_LIMITS.shadowFlipsCounted) {
      this.#flips.set(key, [active, candidate, count]);
    }
  }

  #mostFrequentFlips(): ShadowEvent["classFlips"] {
    const flips = [...this.#flips.values()].sort((a, b) => b[2] - a[2]);
    return flips.slice(0, LIMITS.shadowFlipsMax).map((flip) => [...flip]);
  }
}
