import type { Tensor } from "../backend.js";
import { SignalTracker } from "../signals/tracker.js";
import { INPUT_LIMITS } from "./limits.js";

/** The stream of callers that have one source only. */
export const MAIN_STREAM = "main";

/** What a stream of frames leaves behind for its next one: the classes it gave, the end of its last window, its recurrent state. */
export class StreamState {
  readonly tracker = new SignalTracker();
  /** Samples before the next window, by input name. */
  readonly contexts = new Map<string, Float32Array>();
  /** What the run before said of the next one's state, by input name. */
  readonly states = new Map<string, Tensor>();
  #tail: Promise<unknown> | undefined;

  /** Runs `work` after everything that was given before it has ended, well or not. */
  inOrder<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#tail === undefined ? work() : this.#tail.then(work);
    const tail = turn
      .catch(() => undefined)
      .then(() => {
        if (this.#tail === tail) this.#tail = undefined;
      });
    this.#tail = tail;
    return turn;
  }
}

/** The streams of one model by name, at most {@link INPUT_LIMITS.streamsMax}: a further one forgets the one that was silent longest. */
export class StreamTable {
  readonly #max: number;
  /** In the order of their last frames. */
  readonly #streams = new Map<string, StreamState>();
  #lastName: string | undefined;
  #last: StreamState | undefined;

  constructor(max: number = INPUT_LIMITS.streamsMax) {
    this.#max = max;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** The stream's state, new where it is not known. */
  of(name: string): StreamState {
    if (name === this.#lastName && this.#last !== undefined) return this.#last;
    const state = this.#streams.get(name) ?? new StreamState();
    this.#streams.delete(name);
    this.#streams.set(name, state);
    if (this.#streams.size > this.#max) this.#streams.delete(this.#streams.keys().next().value!);
    this.#lastName = name;
    this.#last = state;
    return state;
  }

  /** Forgets one stream, or all. Runs under way end on what they began with, and leave nothing behind. */
  forget(name?: string): void {
    if (name === undefined) this.#streams.clear();
    else this.#streams.delete(name);
    this.#last = undefined;
    this.#lastName = undefined;
  }
}
