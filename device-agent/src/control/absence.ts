/**
 * Notices that this process itself did not run for a while: suspended with the machine, a virtual machine that stood still, no processor to be
 * had. What nobody listened to in that time was not silent.
 */
export class Absence {
  readonly #intervalMs: number;
  readonly #graceMs: number;
  #at: number | undefined;
  #until = Number.NEGATIVE_INFINITY;

  /** `intervalMs`: how often it is told the time. `graceMs`: what others may take afterwards until they have said where they are. */
  constructor(intervalMs: number, graceMs: number) {
    this.#intervalMs = intervalMs;
    this.#graceMs = graceMs;
  }

  /** Milliseconds that this process was away since the last call; 0 for what a busy machine is late anyway. Times are monotonic. */
  note(nowMs: number): number {
    const lateMs = this.#at === undefined ? 0 : nowMs - this.#at - this.#intervalMs;
    this.#at = nowMs;
    if (lateMs <= this.#graceMs) return 0;
    this.#until = nowMs + this.#graceMs;
    return lateMs;
  }

  /** Back for so short a time that nobody is judged yet. */
  isGrace(nowMs: number): boolean {
    return nowMs < this.#until;
  }
}
