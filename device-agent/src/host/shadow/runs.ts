import { AGENT_LIMITS } from "../../limits.js";
import { STREAMS_MAX } from "../fresh-streams.js";

/** How a candidate is to be shown a frame. */
export interface Showing {
  /** What it carries does not belong before this frame. */
  readonly fresh: boolean;
  /** False while what it carries is brought up to date. */
  readonly compare: boolean;
}

/**
 * Frames in a row for a candidate that carries something from frame to frame. A run ends where a frame is left out; the next one begins with
 * frames that only bring up to date what it carries, since the active version knows what came before and the candidate does not. Where
 * the stream itself begins anew, both know nothing, and it is compared from the first frame on.
 */
export class FrameRuns {
  /** Frames that are still only for warming up, by the stream whose run goes on. */
  readonly #warming = new Map<string, number>();

  /** The stream's next frame may go on where the one before was shown. */
  isRunning(stream: string): boolean {
    return this.#warming.has(stream);
  }

  /** The next frame of the stream is shown. `begins`: the stream itself begins with it. */
  show(stream: string, begins: boolean): Showing {
    const before = this.#warming.get(stream);
    const warming = begins ? 0 : (before ?? AGENT_LIMITS.shadowWarmFrames);
    if (before === undefined && this.#warming.size >= STREAMS_MAX) this.#warming.clear();
    this.#warming.set(stream, Math.max(0, warming - 1));
    return { fresh: begins || before === undefined, compare: warming === 0 };
  }

  /** A frame of the stream is left out. */
  leaveOut(stream: string): void {
    this.#warming.delete(stream);
  }
}
