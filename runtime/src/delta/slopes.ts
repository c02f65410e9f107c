import { scaleLevel, SLOPE_ONE } from "./levels.js";
import { DELTA_LIMITS } from "./limits.js";
import { SLOPE_MAX } from "./operations.js";

/** Rows with fewer numbers than this cannot pay for a slope. */
const COLUMNS_MIN = 24;
/** What a slope costs, in the unit of {@link changeCost}: about ten bits. */
const SLOPE_COST = 10;

/**
 * Of a quantized weight whose scale changed, a whole row changed in proportion: finds each row's slope by least squares, in 4096ths, and
 * keeps those that make the differences cheaper. Undefined where none does.
 */
export function fitSlopes(
  base: Uint8Array,
  from: number,
  target: Uint8Array,
  at: number,
  bytes: number,
  columns: number,
): Int32Array | undefined {
  const rows = Math.ceil(bytes / columns);
  if (columns < COLUMNS_MIN || rows > DELTA_LIMITS.slopeRowsMax) return undefined;
  const old = new Int8Array(base.buffer, base.byteOffset + from, bytes);
  const now = new Int8Array(target.buffer, target.byteOffset + at, bytes);
  const slopes = new Int32Array(rows).fill(SLOPE_ONE);
  let used = 0;
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    const end = Math.min(bytes, start + columns);
    const slope = leastSquares(old, now, start, end);
    if (slope === SLOPE_ONE) continue;
    const gain =
      changeCost(old, now, start, end, SLOPE_ONE) - changeCost(old, now, start, end, slope) - SLOPE_COST;
    if (gain <= 0) continue;
    slopes[row] = slope;
    used += gain;
  }
  // Rows without a slope cost a little as well.
  return used > rows / 2 ? slopes : undefined;
}

function leastSquares(old: Int8Array, now: Int8Array, start: number, end: number): number {
  let products = 0;
  let squares = 0;
  for (let at = start; at < end; at++) {
    products += old[at]! * now[at]!;
    squares += old[at]! * old[at]!;
  }
  const slope = squares === 0 ? SLOPE_ONE : Math.round((SLOPE_ONE * products) / squares);
  return slope < SLOPE_ONE / 4 || slope > SLOPE_MAX ? SLOPE_ONE : slope;
}

/** Bits of a row's differences under a two-sided geometric distribution of their own mean (within a few percent of the coder's). */
function changeCost(old: Int8Array, now: Int8Array, start: number, end: number, slope: number): number {
  let sum = 0;
  for (let at = start; at < end; at++) {
    const expected = slope === SLOPE_ONE ? old[at]! : scaleLevel(old[at]!, slope);
    const difference = ((now[at]! - expected) << 24) >> 24;
    sum += difference < 0 ? -difference : difference;
  }
  const mean = sum / (end - start);
  if (mean === 0) return 0;
  // Entropy of the geometric magnitude, and a sign for those that are not zero.
  const entropy = (mean + 1) * Math.log2(mean + 1) - mean * Math.log2(mean);
  return (end - start) * (entropy + mean / (mean + 1));
}
