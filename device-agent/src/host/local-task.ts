import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import type { HostModel } from "./model.js";
import type { Task } from "./scheduler.js";

/** One inference: who asked gets what `run` gives, or why it was not run. */
export interface LocalRun {
  /** Tells the result itself; rejects where it failed. */
  readonly run: () => Promise<void>;
  readonly reject: (error: FieldloopError) => void;
}

/** What is run, as far as its turns go. */
export type LocalTaskModel = Pick<HostModel, "threadCount">;

interface Entry extends LocalRun {
  readonly since: number;
  /** It waits no more. */
  readonly settled: () => void;
}

/** Inferences that wait for one model, the oldest first: a turn runs one of them. */
export class LocalTask implements Task {
  readonly priority = AGENT_LIMITS.localPriority;
  readonly resource: LocalTaskModel;
  readonly #clock: Clock;
  readonly #onIdle: () => void;
  readonly #entries: Entry[] = [];
  #busySince: number | undefined;

  /** `onIdle`: nothing runs or waits any more. */
  constructor(model: LocalTaskModel, clock: Clock, onIdle: () => void) {
    this.resource = model;
    this.#clock = clock;
    this.#onIdle = onIdle;
  }

  get threadCount(): number {
    return this.resource.threadCount;
  }
  get waitingSince(): number | undefined {
    return this.#entries[0]?.since;
  }
  get waiting(): number {
    return this.#entries.length;
  }
  get runningMs(): number {
    return this.#busySince === undefined ? 0 : this.#clock.monotonic() - this.#busySince;
  }

  /** Waits for a turn, `timeoutMs` at most, until `signal` says that nobody wants it any more. */
  add(run: LocalRun, timeoutMs: number, signal: AbortSignal): void {
    const expired = (): void =>
      this.#remove(entry, new FieldloopError("timed_out", `Infer: no turn within ${timeoutMs} ms`));
    const gone = (): void =>
      this.#remove(entry, new FieldloopError("cancelled", "Infer: who asked for it is gone"));
    const timer = setTimeout(expired, timeoutMs);
    signal.addEventListener("abort", gone, { once: true });
    const entry: Entry = {
      ...run,
      since: this.#clock.monotonic(),
      settled: () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", gone);
      },
    };
    this.#entries.push(entry);
    if (signal.aborted) gone();
  }

  async run(): Promise<void> {
    const entry = this.#entries.shift();
    if (!entry) return;
    entry.settled();
    this.#busySince = this.#clock.monotonic();
    let failure: FieldloopError | undefined;
    try {
      await entry.run();
    } catch (error) {
      failure = toFieldloopError(error);
    }
    this.#busySince = undefined;
    if (failure) entry.reject(failure);
    this.#tellIdle();
  }

  refuseAll(error: FieldloopError): void {
    for (const entry of [...this.#entries]) this.#remove(entry, error);
  }

  #remove(entry: Entry, error: FieldloopError): void {
    const at = this.#entries.indexOf(entry);
    if (at < 0) return;
    this.#entries.splice(at, 1);
    entry.settled();
    entry.reject(error);
    this.#tellIdle();
  }

  #tellIdle(): void {
    if (this.#entries.length === 0 && this.#busySince === undefined) this.#onIdle();
  }
}
