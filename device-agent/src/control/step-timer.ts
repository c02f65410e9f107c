import { FieldloopError, type DeploymentState } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";

/**
 * The end of a state's work where it does not come by itself. While the state waits for something outside the device its time stands
 * still, and the wait has an end of its own.
 */
export class StepTimer {
  readonly #clock: Clock;
  readonly #state: DeploymentState;
  readonly #abort: AbortController;
  readonly #waitMaxMs: number;
  #limitMs: number | undefined;
  #workedMs = 0;
  #waitedMs = 0;
  #isWaiting = false;
  #since: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    clock: Clock,
    state: DeploymentState,
    abort: AbortController,
    limits: { readonly workMs: number | undefined; readonly waitMaxMs: number },
  ) {
    this.#clock = clock;
    this.#state = state;
    this.#abort = abort;
    this.#limitMs = limits.workMs;
    this.#waitMaxMs = limits.waitMaxMs;
    this.#since = this.#clock.monotonic();
    this.#arm();
  }

  /** The work turned out to be longer. */
  allow(workMs: number): void {
    this.#account();
    this.#limitMs = workMs;
    this.#arm();
  }

  waits(isWaiting: boolean): void {
    if (isWaiting === this.#isWaiting) return;
    this.#account();
    this.#isWaiting = isWaiting;
    this.#arm();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #account(): void {
    const now = this.#clock.monotonic();
    if (this.#isWaiting) this.#waitedMs += now - this.#since;
    else this.#workedMs += now - this.#since;
    this.#since = now;
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const limitMs = this.#isWaiting ? this.#waitMaxMs : this.#limitMs;
    if (limitMs === undefined) return;
    const leftMs = limitMs - (this.#isWaiting ? this.#waitedMs : this.#workedMs);
    const what = this.#isWaiting ? "waited" : "took";
    this.#timer = setTimeout(
      () =>
        this.#abort.abort(
          new FieldloopError("timed_out", `Deployment: "${this.#state}" ${what} more than ${limitMs} ms`),
        ),
      Math.max(0, leftMs),
    );
  }
}
