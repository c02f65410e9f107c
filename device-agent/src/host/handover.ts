import type { ModelInput } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";
import type { FrameQueue } from "./frame-queue.js";
import type { SourceFrame } from "./sources/source.js";

interface Pending {
  readonly swap: () => void;
  /** The last frame that waits for the model before; none where the next one can take all that wait. */
  readonly last: SourceFrame | undefined;
  readonly timer: NodeJS.Timeout | undefined;
}

/**
 * When a lane's next model takes over: between two turns, and behind the frames that were made for the one before, which cuts its
 * windows otherwise. A model before that does not get through them in {@link AGENT_LIMITS.frameCatchUpMs} loses them, counted.
 */
export class Handover {
  readonly #queue: FrameQueue;
  #inTurn = false;
  #pending: Pending | undefined;

  constructor(queue: FrameQueue) {
    this.#queue = queue;
  }

  /** Calls `swap` once, as soon as it may be. One at a time. */
  begin(swap: () => void, next: readonly ModelInput[] = []): void {
    const last = this.#queue.findLast((frame) => isMadeForAnother(frame, next));
    const timer = last && setTimeout(() => this.#giveUpOn(last), AGENT_LIMITS.frameCatchUpMs).unref();
    this.#pending = { swap, last, timer };
    this.settle();
  }

  /** How many of `count` frames the turn that begins may take. */
  turnBegins(count: number): number {
    this.#inTurn = true;
    const last = this.#pending?.last;
    const own = last ? this.#queue.countTo(last) : 0;
    return own > 0 ? Math.min(count, own) : count;
  }

  turnEnds(): void {
    this.#inTurn = false;
    this.settle();
  }

  /** Frames may have gone without a turn. */
  settle(): void {
    const pending = this.#pending;
    if (!pending || this.#inTurn) return;
    if (pending.last && this.#queue.countTo(pending.last) > 0) return;
    clearTimeout(pending.timer);
    this.#pending = undefined;
    pending.swap();
  }

  #giveUpOn(last: SourceFrame): void {
    this.#queue.dropTo(last);
    this.settle();
  }
}

/** A window of another length than the model's, or a row without some of its columns. What other programs push is theirs to fit. */
function isMadeForAnother({ frame, isGuest }: SourceFrame, inputs: readonly ModelInput[]): boolean {
  if (isGuest) return false;
  return inputs.some((input) => {
    if (frame.kind === "window" && input.kind === "window")
      return frame.samples.length !== input.length * input.channels;
    if (frame.kind === "row" && input.kind === "table")
      return input.columns.some(({ name }) => !Object.hasOwn(frame.values, name));
    return false;
  });
}
