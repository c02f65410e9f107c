import type { SourceFrame } from "./sources/source.js";

/** Streams that outgrow it forget the oldest one: at worst a model carries on over a gap. */
export const STREAMS_MAX = 512;

/** Streams whose first frame after a gap was not run: the next one is the first then. */
export class FreshStreams {
  readonly #streams = new Set<string>();

  /** The next frame of a stream follows on nothing. */
  mark(stream = ""): void {
    if (this.#streams.size >= STREAMS_MAX) this.#streams.delete(this.#streams.values().next().value!);
    this.#streams.add(stream);
  }

  /** A frame goes without having been run. */
  lost(frame: SourceFrame): void {
    if (frame.fresh === true && !frame.isGuest) this.mark(frame.stream);
  }

  /** A frame goes on its way, as the first of its stream where one before it was lost as such. */
  pass(frame: SourceFrame): SourceFrame {
    if (frame.isGuest || this.#streams.size === 0) return frame;
    return this.#streams.delete(frame.stream ?? "") ? { ...frame, fresh: true } : frame;
  }
}
