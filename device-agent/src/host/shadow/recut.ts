import { type CutWindow, WindowCutter } from "../sources/window-cutter.js";
import type { WindowShape } from "../sources/source.js";

/** Cuts the signal in windows of one shape, each of which goes on where the one before did, into windows of another. */
export class Recutter {
  readonly #step: number;
  readonly #cutter: WindowCutter;

  /** `from.hop` is at most `from.length`: otherwise samples are missing between two windows. */
  constructor(from: WindowShape, to: WindowShape) {
    this.#step = from.hop * from.channels;
    this.#cutter = new WindowCutter(to);
  }

  /** The windows that are whole with this one, in their order; `fresh` where it does not follow on the one before. */
  push(samples: Float32Array, fresh: boolean): CutWindow[] {
    if (fresh) this.#cutter.reset();
    // All but the last `hop` samples came with the window before.
    return [...this.#cutter.push(fresh ? samples : samples.subarray(samples.length - this.#step))];
  }
}
