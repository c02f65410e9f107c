import type { Heartbeat } from "../ipc.js";

/** Frames over all hosts of this boot: each host counts from 0, the last beat of one that ended stays in the sum. */
export class FrameCounters {
  #dropped = 0;
  #failed = 0;
  #last: Heartbeat | undefined;

  /** Returns how many frames failed since the beat before. */
  beat(heartbeat: Heartbeat): number {
    const failed = heartbeat.framesFailed - (this.#last?.framesFailed ?? 0);
    this.#last = heartbeat;
    return failed;
  }

  hostEnded(): void {
    this.#dropped += this.#last?.framesDropped ?? 0;
    this.#failed += this.#last?.framesFailed ?? 0;
    this.#last = undefined;
  }

  get dropped(): number {
    return this.#dropped + (this.#last?.framesDropped ?? 0);
  }
  get failed(): number {
    return this.#failed + (this.#last?.framesFailed ?? 0);
  }
}
