import { FieldloopError } from "@fieldloop/protocol";

/**
 * Adaptive binary range coder (Martin 1979; carry handling as in LZMA): integers of at most 31 bits, so that every platform does the
 * same. A model is one number of a {@link bitModels} array: its upper 22 bits are the chance of a one, its lower 10 how
 * often it was used, so that a young model learns fast (1/n) and an old one follows slowly.
 */

/** Uses after which a model learns no slower. */
const USES_MAX = 255;
/** 2^14 / (2n + 3): the step of a model that was used n times, in the scale of {@link learn}. */
const STEPS = Int32Array.from({ length: USES_MAX + 1 }, (_, uses) => Math.floor(16384 / (2 * uses + 3)));
const RANGE_START = 0x7fffffff;
const RANGE_MIN = 0x800000;
const CHANCE_BITS = 12;
/** A reader is at most this many bytes ahead of what it needs. */
const AHEAD_MAX = 8;

/** `count` models that expect zero and one alike. */
export function bitModels(count: number): Int32Array {
  return new Int32Array(count).fill(0x80000000 | 0);
}

/** The model after it saw `bit`. */
function learn(state: number, bit: number): number {
  const uses = state & 1023;
  const moved = state + (Math.imul(((bit << 22) - (state >>> 10)) >> 3, STEPS[uses]!) & -1024);
  return uses < USES_MAX ? moved + 1 : moved;
}

/** Chance of a one, 1 to 4095 of 4096. */
function chanceOf(state: number): number {
  return (state >>> 20) | Number(state >>> 20 === 0);
}

/**
 * What the codecs speak to: a writer codes the bit that it is given and returns it, a reader ignores it and returns the one that was
 * written. A codec that goes on from what is returned is the same code in both directions.
 */
export interface BitCoder {
  bit(models: Int32Array, index: number, bit: number): number;
  /** The lowest `count` bits of `value`, 1 to 16, each as likely zero as one. */
  direct(value: number, count: number): number;
}

export class RangeEncoder implements BitCoder {
  #bytes = new Uint8Array(4096);
  #length = 0;
  #low = 0;
  #range = RANGE_START;
  /** The last byte that a carry may still change, and bytes 255 behind it. None before the first. */
  #cache = -1;
  #pending = 0;

  /** Bytes so far, give or take five. */
  get length(): number {
    return this.#length + this.#pending;
  }

  bit(models: Int32Array, index: number, bit: number): number {
    const state = models[index]!;
    const bound = (this.#range >>> CHANCE_BITS) * chanceOf(state);
    if (bit !== 0) this.#range = bound;
    else {
      this.#low += bound;
      this.#range -= bound;
    }
    models[index] = learn(state, bit);
    while (this.#range < RANGE_MIN) this.#shift();
    return bit;
  }

  direct(value: number, count: number): number {
    const coded = value & ((1 << count) - 1);
    this.#range = this.#range >>> count;
    this.#low += coded * this.#range;
    while (this.#range < RANGE_MIN) this.#shift();
    return coded;
  }

  /** Ends the stream and gives it. */
  finish(): Uint8Array {
    for (let byte = 0; byte < 5; byte++) this.#shift();
    return this.#bytes.slice(0, this.#length);
  }

  #shift(): void {
    const carry = this.#low >= 2 ** 31 ? 1 : 0;
    if (carry === 1 || this.#low < 0x7f800000) {
      if (this.#cache >= 0) this.#write(this.#cache + carry);
      for (; this.#pending > 0; this.#pending--) this.#write(255 + carry);
      this.#cache = Math.floor(this.#low / RANGE_MIN) & 255;
    } else this.#pending++;
    this.#low = (this.#low % RANGE_MIN) * 256;
    this.#range *= 256;
  }

  #write(byte: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(this.#length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = byte;
  }
}

export class RangeDecoder implements BitCoder {
  readonly #bytes: Uint8Array;
  #at = 4;
  #range = RANGE_START;
  #code: number;
  /** 31 bits are no whole number of bytes: the lowest bit of this byte is still to be used. */
  #last: number;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    const byte = (index: number) => bytes[index] ?? 0;
    this.#code = (byte(0) << 23) | (byte(1) << 15) | (byte(2) << 7) | (byte(3) >>> 1);
    this.#last = byte(3);
  }

  bit(models: Int32Array, index: number, _bit = 0): number {
    const state = models[index]!;
    const bound = (this.#range >>> CHANCE_BITS) * chanceOf(state);
    let bit = 0;
    if (this.#code < bound) {
      this.#range = bound;
      bit = 1;
    } else {
      this.#code -= bound;
      this.#range -= bound;
    }
    models[index] = learn(state, bit);
    while (this.#range < RANGE_MIN) this.#shift();
    return bit;
  }

  direct(_value: number, count: number): number {
    this.#range = this.#range >>> count;
    // A forged stream may point beyond the range.
    const value = Math.min(Math.floor(this.#code / this.#range), (1 << count) - 1);
    this.#code -= value * this.#range;
    while (this.#range < RANGE_MIN) this.#shift();
    return value;
  }

  /** @throws FieldloopError `delta_malformed` where more was read than there is */
  check(): void {
    if (this.#at > this.#bytes.length + AHEAD_MAX) {
      throw new FieldloopError("delta_malformed", "Read delta: it ends too early");
    }
  }

  #shift(): void {
    const next = this.#at < this.#bytes.length ? this.#bytes[this.#at]! : 0;
    this.#at++;
    this.#code = ((this.#code << 8) | ((this.#last << 7) & 255) | (next >>> 1)) & 0x7fffffff;
    this.#last = next;
    this.#range <<= 8;
  }
}
