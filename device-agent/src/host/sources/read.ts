import type { FieldloopError } from "@fieldloop/protocol";
import { systemClock } from "../../clock.js";
import type { SourceSpec } from "../../source-spec.js";
import { createSource } from "./open.js";
import type { FrameSink, SourceContext, SourceFrame } from "./source.js";

/** Frames that lie ready while the reader works on one. */
const WAITING_MAX = 4;

/** What the model wants to be given; see {@link SourceContext}. */
export type ReadWants = Pick<SourceContext, "window" | "columns">;

/**
 * The frames of a source one after the other, to its end. A source that drops frames when nobody takes them (`drop=oldest`) does so here
 * too; the first trouble ends the reading, since what follows would not be what was asked for.
 * @throws FieldloopError `source_failed`, `row_malformed`
 */
export async function* readSource(spec: SourceSpec, wants: ReadWants): AsyncGenerator<SourceFrame> {
  const sink = new ReadSink();
  const source = createSource(
    spec,
    {
      ...wants,
      sink,
      clock: systemClock,
      onTrouble: (error) => error && sink.end(error),
      onFeedback: () => undefined,
      onEnd: () => sink.end(undefined),
    },
    0,
  );
  await source.open();
  try {
    for (let frame = await sink.next(); frame !== undefined; frame = await sink.next()) yield frame;
  } finally {
    sink.end(undefined);
    await source.close();
  }
}

class ReadSink implements FrameSink {
  readonly #frames: SourceFrame[] = [];
  #ended = false;
  #error: FieldloopError | undefined;
  #wake: (() => void) | undefined;
  #spaces: (() => void)[] = [];

  get isFull(): boolean {
    return !this.#ended && this.#frames.length >= WAITING_MAX;
  }

  offer(frame: SourceFrame): void {
    if (this.#ended) return;
    if (this.isFull) this.#frames.shift();
    this.#frames.push(frame);
    this.#wake?.();
  }

  space(): Promise<void> {
    if (!this.isFull || this.#ended) return Promise.resolve();
    return new Promise((resolve) => this.#spaces.push(resolve));
  }

  noteMissed(): void {
    // Nobody counts here.
  }

  end(error: FieldloopError | undefined): void {
    if (!this.#ended) this.#error = error;
    this.#ended = true;
    this.#wake?.();
    this.#makeSpace();
  }

  /** Undefined when the source has ended and all is read. */
  async next(): Promise<SourceFrame | undefined> {
    while (this.#frames.length === 0) {
      if (this.#error) throw this.#error;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const frame = this.#frames.shift();
    this.#makeSpace();
    return frame;
  }

  #makeSpace(): void {
    for (const resolve of this.#spaces.splice(0)) resolve();
  }
}
