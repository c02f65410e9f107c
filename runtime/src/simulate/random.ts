/**
 * Seeded pseudo-random numbers for the simulators and the recipes. Not for keys or tokens.
 *
 * The stream is xoshiro128** 1.1 (Blackman, Vigna: "Scrambled linear pseudorandom number generators", 2021),
 * its state filled by the finalizer of MurmurHash3, so that neighbouring seeds give unrelated streams.
 */

const uint32Range = 2 ** 32;

/** Bijective mixing of 32 bits (the finalizer of MurmurHash3). */
function mix32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * One 32-bit hash of a sequence of integers (each up to 2^53), order matters. Gives an independent stream for
 * every (seed, index, purpose): the reason why a frame can be drawn without drawing those before it.
 */
export function hashSeed(...parts: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const part of parts) {
    h = mix32(h ^ part) + 0x6d2b79f5;
    h = mix32(h ^ Math.floor(part / uint32Range)) + 0x1b873593;
  }
  return h >>> 0;
}

/** 32-bit hash of a text, for streams named by a word (FNV-1a over UTF-16 units, then mixed). */
export function hashText(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return mix32(h);
}

const gaussTableSize = 4096;

let gaussTable: Float32Array | undefined;

/**
 * Quantiles of the standard normal distribution at the middles of 4,096 equal shares, by Newton's method from one to the next. They take
 * some milliseconds: made when they are wanted first.
 */
function makeGaussTable(): Float32Array {
  const table = new Float32Array(gaussTableSize);
  const half = gaussTableSize / 2;
  let quantile = 0;
  for (let i = 0; i < half; i++) {
    const share = 0.5 + (i + 0.5) / gaussTableSize;
    for (let change = 1; Math.abs(change) > 1e-10; ) {
      const density = Math.exp((-quantile * quantile) / 2) / Math.sqrt(2 * Math.PI);
      change = (normalShare(quantile) - share) / density;
      quantile -= change;
    }
    table[half + i] = quantile;
    table[half - 1 - i] = -quantile;
  }
  return table;
}

/** Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...), Abramowitz and Stegun 26.2.11. */
function normalShare(x: number): number {
  let term = x;
  let sum = x;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x * x) / (2 * k + 1);
    sum += term;
  }
  return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}

/** One stream of pseudo-random numbers; the same seed gives the same numbers everywhere. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(...seed: readonly number[]) {
    this.#a = hashSeed(1, ...seed);
    this.#b = hashSeed(2, ...seed);
    this.#c = hashSeed(3, ...seed);
    // An all-zero state is the one that xoshiro never leaves.
    this.#d = hashSeed(4, ...seed) | 1;
  }

  /** Integer in [0, 2^32). */
  uint32(): number {
    const scrambled = Math.imul(this.#b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9);
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result >>> 0;
  }

  /** Number in [0, 1). */
  uniform(): number {
    return this.uint32() / uint32Range;
  }

  /** Number in [min, max). */
  range(min: number, max: number): number {
    return min + (max - min) * this.uniform();
  }

  /** Integer in [0, count). */
  int(count: number): number {
    return Math.floor(this.uniform() * count);
  }

  /** Standard normal number out of 4,096 equally likely quantiles (|x| <= 3.7): quick, good for noise. */
  normal(): number {
    gaussTable ??= makeGaussTable();
    return gaussTable[this.uint32() >>> 20];
  }

  /** Shuffles in place (Fisher and Yates) and returns the same array. */
  shuffle<A extends { length: number; [index: number]: number }>(values: A): A {
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.int(i + 1);
      const kept = values[i];
      values[i] = values[j];
      values[j] = kept;
    }
    return values;
  }
}

/** The standard normal number at place `index` of the stream `seed`: random access, no state. */
export function normalAt(seed: number, index: number): number {
  gaussTable ??= makeGaussTable();
  return gaussTable[mix32(mix32(seed ^ (index | 0)) + Math.imul(seed, 0x9e3779b1)) >>> 20];
}
