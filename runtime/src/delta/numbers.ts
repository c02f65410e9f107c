import { bitModels, type BitCoder } from "./range-coder.js";

/** Numbers below 2^32 have 0 to 32 significant bits: that many classes. */
export const SIZE_CLASSES = 33;
/** Bits below the leading one that are modelled; those further down look like noise in everything that is coded here. */
const MODELLED_BITS = 3;
const TREE_BITS = 6;

/** How many significant bits a number has, 0 to 32. */
export function sizeClass(value: number): number {
  return 32 - Math.clz32(value);
}

/** Models for unsigned numbers of at most 32 bits, by the size class of what came before (`contexts` of them). */
export class NumberModels {
  readonly sizes: Int32Array;
  readonly tops: Int32Array;

  constructor(contexts: number) {
    this.sizes = bitModels(contexts << TREE_BITS);
    this.tops = bitModels(SIZE_CLASSES << MODELLED_BITS);
  }
}

/** Codes an unsigned 32-bit number: its size, three bits behind the leading one, the rest as it is. */
export function codeNumber(coder: BitCoder, models: NumberModels, context: number, value: number): number {
  const size = codeSize(coder, models.sizes, context, sizeClass(value));
  if (size <= 1) return size;
  let below = size - 1;
  let coded = 1;
  const first = size << MODELLED_BITS;
  const modelled = Math.min(below, MODELLED_BITS);
  for (let bit = 0; bit < modelled; bit++) {
    below--;
    coded = (coded << 1) | coder.bit(models.tops, first | coded, (value >>> below) & 1);
  }
  while (below > 0) {
    const taken = Math.min(below, 16);
    below -= taken;
    coded = ((coded << taken) | coder.direct(value >>> below, taken)) >>> 0;
  }
  return coded;
}

function codeSize(coder: BitCoder, models: Int32Array, context: number, size: number): number {
  const first = context << TREE_BITS;
  let node = 1;
  for (let bit = TREE_BITS - 1; bit >= 0; bit--) {
    node = (node << 1) | coder.bit(models, first | node, (size >>> bit) & 1);
  }
  // A forged stream may claim up to 63 bits.
  return Math.min(node - (1 << TREE_BITS), 32);
}

/** 0, -1, 1, -2, 2, … as 0, 1, 2, 3, 4, …; of 32-bit integers. */
export function zigzag(value: number): number {
  return ((value << 1) ^ (value >> 31)) >>> 0;
}

export function unzigzag(value: number): number {
  return (value >>> 1) ^ -(value & 1);
}
