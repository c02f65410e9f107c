/** Largest finite float16. */
export const HALF_MAX = 65504;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/**
 * Bits of the float16 nearest to a float32, ties to even (IEEE 754-2019, binary16); magnitudes from 65520 on become infinite, small ones
 * subnormal or zero, NaN stays NaN.
 */
export function halfBits(value: number): number {
  float[0] = value;
  const word = bits[0]!;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520 lies halfway between the largest finite value and what would be the next one.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    // Normal: re-bias the exponent, then round the 13 bits that go.
    const kept = (magnitude - 0x38000000) >>> 13;
    return sign | (kept + roundUp(magnitude & 0x1fff, 0x1000, kept));
  }
  // Subnormal, in units of 2^-24; 2^-25 itself is a tie with zero.
  if (magnitude < 0x33000000) return sign;
  const exponent = magnitude >>> 23;
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - exponent;
  const kept = mantissa >>> shift;
  return sign | (kept + roundUp(mantissa & ((1 << shift) - 1), 1 << (shift - 1), kept));
}

function roundUp(rest: number, half: number, kept: number): number {
  return rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0;
}

/** float16 bits of values; finite ones beyond the largest float16 are clipped to it and counted. */
export function toHalf(values: Float32Array): { readonly data: Uint16Array; readonly clipped: number } {
  const data = new Uint16Array(values.length);
  let clipped = 0;
  for (let index = 0; index < values.length; index++) {
    let value = values[index]!;
    if (Math.abs(value) > HALF_MAX && Math.abs(value) !== Number.POSITIVE_INFINITY) {
      value = Math.sign(value) * HALF_MAX;
      clipped++;
    }
    data[index] = halfBits(value);
  }
  return { data, clipped };
}
