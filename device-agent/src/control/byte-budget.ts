import { FieldloopError } from "@fieldloop/protocol";

/** Bytes that are in hand at one time over all requests: what does not fit is refused, never queued. */
export class ByteBudget {
  readonly #bytesMax: number;
  #inHand = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @throws FieldloopError `rate_limited` */
  take(bytes: number): void {
    if (this.#inHand + bytes > this.#bytesMax) {
      throw new FieldloopError(
        "rate_limited",
        `Take request: ${bytes} bytes beside the ${this.#inHand} in hand, at most ${this.#bytesMax}; try again later`,
      );
    }
    this.#inHand += bytes;
  }

  give(bytes: number): void {
    this.#inHand -= bytes;
  }

  /** @throws FieldloopError `rate_limited`, and what `work` throws */
  async during<Result>(bytes: number, work: () => Promise<Result>): Promise<Result> {
    this.take(bytes);
    try {
      return await work();
    } finally {
      this.give(bytes);
    }
  }
}
