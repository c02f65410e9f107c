import type { Logger } from "../context.js";

const TICK_MS = 1_000;
/** Reports of many devices at once cost one tick. */
const WAKE_MS = 100;
/** Ticks whose time is remembered. */
const REMEMBERED = 1_000;

/** Calls a tick every second, sooner where it was woken; never two at once. */
export class TickTimer {
  readonly #tick: () => Promise<boolean>;
  readonly #logger: Logger;
  readonly #everyMs: number;
  readonly #durations: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #due = Number.POSITIVE_INFINITY;
  #ticking = false;
  #stopped = true;
  ticks = 0;

  constructor(tick: () => Promise<boolean>, logger: Logger, everyMs: number = TICK_MS) {
    this.#tick = tick;
    this.#logger = logger;
    this.#everyMs = everyMs;
  }

  start(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#schedule(0);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Something happened: the next tick is due now rather than in a second. */
  wake(): void {
    this.#schedule(WAKE_MS);
  }

  /** Milliseconds that the last ticks took. */
  quantile(share: number): number {
    const sorted = this.#durations.toSorted((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  }

  /** The next tick, no later than in `delayMs`; asked for during a tick, it follows that one. */
  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    const due = performance.now() + delayMs;
    this.#due = Math.min(this.#due, due);
    if (this.#ticking || (this.#timer && this.#due < due)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#run(), Math.max(0, this.#due - performance.now()));
  }

  async #run(): Promise<void> {
    this.#ticking = true;
    this.#timer = undefined;
    this.#due = Number.POSITIVE_INFINITY;
    const begin = performance.now();
    try {
      await this.#tick();
    } catch (error) {
      this.#logger.error({ err: error }, "rollout tick failed");
    } finally {
      this.ticks++;
      this.#durations.push(performance.now() - begin);
      if (this.#durations.length > REMEMBERED) this.#durations.shift();
      this.#ticking = false;
      this.#schedule(this.#everyMs);
    }
  }
}
