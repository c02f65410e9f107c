import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import type { Warnings } from "./warnings.js";

const MEGABYTE = 2 ** 20;

/** Says when the host grew so large that it makes room for a new one. */
export class MemoryCeiling {
  readonly #bytesMax: number;
  readonly #clock: Clock;
  readonly #warnings: Warnings;
  #exceededAt = Number.NEGATIVE_INFINITY;
  #intervalMs: number = AGENT_LIMITS.hostRecycleIntervalMs;
  /** The host that runs was too large again soon after its start. */
  #isTooLarge = false;

  constructor(options: { hostBytesMax: number; clock: Clock; warnings: Warnings }) {
    this.#bytesMax = options.hostBytesMax;
    this.#clock = options.clock;
    this.#warnings = options.warnings;
  }

  /**
   * True where the host is to be started anew. One that is too large again soon after is told instead, and started anew after twice the time
   * of before: where the models simply need more than the ceiling, the device shall predict and not be loading them all day.
   */
  isExceeded(residentBytes: number): boolean {
    if (residentBytes <= this.#bytesMax) return false;
    const [held, ceiling] = [residentBytes, this.#bytesMax].map((bytes) => Math.round(bytes / MEGABYTE));
    const what = `The inference host held ${held} MB, its ceiling is ${ceiling} MB`;
    const now = this.#clock.monotonic();
    if (now - this.#exceededAt < this.#intervalMs) {
      this.#isTooLarge = true;
      this.#warnings.raise("host_memory_exceeded", `${what}, soon after a new start: give it more`);
      return false;
    }
    this.#intervalMs = this.#isTooLarge
      ? Math.min(2 * this.#intervalMs, AGENT_LIMITS.hostRecycleIntervalMaxMs)
      : AGENT_LIMITS.hostRecycleIntervalMs;
    this.#isTooLarge = false;
    this.#exceededAt = now;
    this.#warnings.raise("host_memory_exceeded", `${what}: it was started anew`);
    return true;
  }
}
