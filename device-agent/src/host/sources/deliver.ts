import { setImmediate as nextTurn } from "node:timers/promises";
import { untilAborted } from "./keep-trying.js";
import type { SourceContext, SourceFrame } from "./source.js";

/** A burst of frames lets everything else on this thread have its turn so often. */
const TURN_MS = 20;

/** Puts frames into the sink by a source's drop policy. */
export class Deliverer {
  readonly #context: Pick<SourceContext, "sink" | "clock">;
  readonly #drop: "oldest" | "wait";
  #turnAt = 0;

  constructor(context: Pick<SourceContext, "sink" | "clock">, drop: "oldest" | "wait") {
    this.#context = context;
    this.#drop = drop;
  }

  /** Resolves at once with `oldest`, and with `wait` when the frame has its place or the source is closed. */
  async deliver(frame: SourceFrame, signal: AbortSignal): Promise<void> {
    const { sink, clock } = this.#context;
    // Others may wait for the same place: who comes to it later waits on.
    while (this.#drop === "wait" && sink.isFull && !signal.aborted) await untilAborted(signal, sink.space());
    if (signal.aborted) return;
    sink.offer(frame);
    const now = clock.monotonic();
    if (now - this.#turnAt < TURN_MS) return;
    await nextTurn();
    this.#turnAt = clock.monotonic();
  }
}
