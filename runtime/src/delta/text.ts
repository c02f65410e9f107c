import { bitModels, type BitCoder } from "./range-coder.js";

/** Codes bytes that are no numbers (names, operators, attributes), each by the one before it. */
export class TextCoder {
  readonly #models = bitModels(256 * 256);
  #before = 0;

  /** Codes `bytes` from `from` to `to`: read when writing, filled when reading. */
  code(coder: BitCoder, bytes: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to; at++) {
      const first = this.#before << 8;
      const byte = bytes[at]!;
      let node = 1;
      for (let bit = 7; bit >= 0; bit--) {
        node = (node << 1) | coder.bit(this.#models, first | node, (byte >>> bit) & 1);
      }
      this.#before = node & 255;
      bytes[at] = this.#before;
    }
  }
}
