import { numberToHalf } from "../package/tensor-bytes.js";

/** Largest finite float16. */
export const HALF_MAX = 65504;

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
    data[index] = numberToHalf(value);
  }
  return { data, clipped };
}
