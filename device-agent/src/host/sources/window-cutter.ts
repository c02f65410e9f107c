export interface CutWindow {
  /** length · channels values, interleaved; nobody else holds them. */
  readonly samples: Float32Array;
  /** No window came before it, or samples are missing between. */
  readonly fresh: boolean;
}

/** Cuts a stream of samples into windows of `length`, each `hop` behind the one before. */
export class WindowCutter {
  readonly length: number;
  readonly hop: number;
  readonly channels: number;
  readonly #buffer: Float32Array;
  #filled = 0;
  /** Values to pass over, where windows lie apart. */
  #skip = 0;
  #fresh = true;

  constructor(shape: { length: number; hop: number; channels: number }) {
    this.length = shape.length;
    this.hop = shape.hop;
    this.channels = shape.channels;
    this.#buffer = new Float32Array(shape.length * shape.channels);
  }

  /** Forgets the samples of a window that is not whole. */
  reset(): void {
    this.#filled = 0;
    this.#skip = 0;
    this.#fresh = true;
  }

  /** Takes interleaved samples; gives each window as soon as it is whole. */
  *push(values: Float32Array): Generator<CutWindow> {
    let at = 0;
    while (at < values.length) {
      if (this.#skip > 0) {
        const passed = Math.min(this.#skip, values.length - at);
        this.#skip -= passed;
        at += passed;
        continue;
      }
      const count = Math.min(this.#buffer.length - this.#filled, values.length - at);
      this.#buffer.set(values.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === this.#buffer.length) yield this.#cut();
    }
  }

  #cut(): CutWindow {
    const window = { samples: this.#buffer.slice(), fresh: this.#fresh };
    const step = this.hop * this.channels;
    this.#fresh = false;
    if (step < this.#buffer.length) this.#buffer.copyWithin(0, step);
    this.#filled = Math.max(0, this.#buffer.length - step);
    this.#skip = Math.max(0, step - this.#buffer.length);
    return window;
  }
}
