import { codeNumber, NumberModels, SIZE_CLASSES, sizeClass, unzigzag, zigzag } from "./numbers.js";
import type { BitCoder } from "./range-coder.js";

/** Models that all tensors of one kind share. */
export class WideModels {
  readonly numbers = new NumberModels(SIZE_CLASSES);
}

/**
 * Codes 16- and 32-bit numbers as differences from those of the base, modulo their size. How many bits the difference has goes by the
 * sizes of the differences before it; below its first bits the difference of two trained floats is noise.
 */
export class WideCoder {
  readonly #models: WideModels;
  readonly #float: boolean;
  readonly #bits: 16 | 32;
  /** Running mean of size classes, 4 bits behind the point. */
  #mean = 0;

  constructor(models: WideModels, bits: 16 | 32, float: boolean) {
    this.#models = models;
    this.#bits = bits;
    this.#float = float;
  }

  /** Codes the next `count` numbers of `values` (filled when reading) against those of `base`. */
  code(
    coder: BitCoder,
    base: Uint16Array | Uint32Array,
    values: Uint16Array | Uint32Array,
    count: number,
  ): void {
    const shift = 32 - this.#bits;
    const top = this.#bits === 32 ? 0x80000000 | 0 : 0x8000;
    let mean = this.#mean;
    for (let at = 0; at < count; at++) {
      const old = this.#float ? ordered(base[at]! | 0, top) : base[at]! | 0;
      const now = this.#float ? ordered(values[at]! | 0, top) : values[at]! | 0;
      const difference = ((now - old) << shift) >> shift;
      const coded = codeNumber(coder, this.#models.numbers, (mean + 8) >> 4, zigzag(difference));
      const found = old + unzigzag(coded);
      values[at] = this.#float ? unordered(found, top) : found;
      mean += ((sizeClass(coded) << 4) - mean) >> 2;
    }
    this.#mean = mean;
  }
}

/**
 * Bits of a float so that greater numbers have greater bits: negative ones are turned round (IEEE 754 is sign and magnitude). Any bits go
 * in and come back, NaN included. `top` is the sign bit; bits above it are left as they come.
 */
function ordered(bits: number, top: number): number {
  return (bits & top) === 0 ? bits | top : ~bits;
}

function unordered(bits: number, top: number): number {
  return (bits & top) === 0 ? ~bits : bits & ~top;
}
