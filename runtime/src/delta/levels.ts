import { bitModels, type BitCoder } from "./range-coder.js";

/** Recent change is told apart in so many steps, along the row and down the column. */
const ACTIVITY_LEVELS = 16;
/** Activities hold 8 bits behind the point. A row forgets slowly, a column, of which one number a row is seen, faster. */
const ACTIVITY_BITS = 8;
const ROW_SHIFT = 4;
const COLUMN_SHIFT = 2;
/** |difference| of 8-bit numbers is at most 128: classes 1, 2–3, 4–7, … 128. */
const CLASSES = 8;
const CONTEXTS = ACTIVITY_LEVELS * ACTIVITY_LEVELS;

/** 4096 is a slope of 1. */
export const SLOPE_ONE = 4096;
export const SLOPE_BITS = 12;

/** Of an activity in eighths of its unit: two steps an octave from 1/16 on; 0 is stillness. */
const LEVEL_OF = Uint8Array.from({ length: 1 << (7 + ACTIVITY_BITS - 3) }, (_, eighths) => {
  if (eighths < 2) return eighths;
  const octave = 31 - Math.clz32(eighths);
  const half = eighths * eighths >= 2 << (2 * octave) ? 1 : 0;
  return Math.min(2 * octave - 1 + half, ACTIVITY_LEVELS - 1);
});

/** Models that all 8-bit tensors of a file share: they learn from each other. */
export class LevelModels {
  readonly zero = bitModels(CONTEXTS);
  readonly sign = bitModels(9);
  readonly more = bitModels(CONTEXTS * CLASSES);
  readonly below = bitModels(CLASSES << 8);
}

/**
 * Codes the 8-bit numbers of one tensor as differences from those of the base, modulo 256. How large the last changes were along the
 * row (one output channel) and down the column (one input) chooses the models: some channels hardly move, some inputs
 * hardly count. The sign goes by the sign before and the base's own.
 */
export class LevelCoder {
  readonly #models: LevelModels;
  readonly #columns: Uint16Array;
  /** Of each row; what the base's numbers are multiplied by first. Undefined for 1 everywhere. */
  readonly #slopes: ArrayLike<number> | undefined;
  #row = 0;
  #column = 0;
  #activity = 0;
  #before = 0;

  constructor(models: LevelModels, columnCount: number, slopes: ArrayLike<number> | undefined) {
    this.#models = models;
    this.#columns = new Uint16Array(columnCount);
    this.#slopes = slopes;
  }

  /** Codes the next `count` numbers of `values` (filled when reading) against those of `base`. */
  code(coder: BitCoder, base: Int8Array, values: Int8Array, count: number): void {
    const columns = this.#columns;
    const models = this.#models;
    const last = columns.length;
    let column = this.#column;
    let activity = this.#activity;
    let before = this.#before;
    let slope = this.#slopeOf(this.#row);
    for (let at = 0; at < count; at++) {
      const old = base[at]!;
      const expected = slope === SLOPE_ONE ? old : scaleLevel(old, slope);
      const moved = columns[column]!;
      const context = (LEVEL_OF[activity >> 3]! << 4) | LEVEL_OF[moved >> 3]!;
      const difference = ((values[at]! - expected) << 24) >> 24;
      let size = 0;
      if (coder.bit(models.zero, context, difference === 0 ? 0 : 1) === 1) {
        const sign = signOf(before) * 3 + signOf(old);
        const negative = coder.bit(models.sign, sign, difference < 0 ? 1 : 0);
        size = codeSize(coder, models, context, difference < 0 ? -difference : difference);
        before = negative === 1 ? -size : size;
        values[at] = expected + before;
      } else {
        before = 0;
        values[at] = expected;
      }
      activity += ((size << ACTIVITY_BITS) - activity) >> ROW_SHIFT;
      columns[column] = moved + (((size << ACTIVITY_BITS) - moved) >> COLUMN_SHIFT);
      if (++column === last) {
        column = 0;
        slope = this.#slopeOf(++this.#row);
      }
    }
    this.#column = column;
    this.#activity = activity;
    this.#before = before;
  }

  #slopeOf(row: number): number {
    return this.#slopes?.[row] ?? SLOPE_ONE;
  }
}

/** A difference of 1 to 128: how many bits it has, one by one, then those below the leading one. */
function codeSize(coder: BitCoder, models: LevelModels, context: number, size: number): number {
  const wanted = 32 - Math.clz32(size);
  let bits = 1;
  while (bits < CLASSES && coder.bit(models.more, (bits << 8) | context, bits < wanted ? 1 : 0) === 1) bits++;
  let coded = 1;
  for (let bit = bits - 2; bit >= 0; bit--) {
    const node = ((bits - 1) << 8) | coded;
    coded = (coded << 1) | coder.bit(models.below, node, (size >>> bit) & 1);
  }
  return coded;
}

function signOf(value: number): number {
  return value > 0 ? 2 : value < 0 ? 0 : 1;
}

/** A level times its row's slope, rounded, within 8 bits. */
export function scaleLevel(level: number, slope: number): number {
  const scaled = (level * slope + (SLOPE_ONE >> 1)) >> SLOPE_BITS;
  return scaled > 127 ? 127 : scaled < -128 ? -128 : scaled;
}
