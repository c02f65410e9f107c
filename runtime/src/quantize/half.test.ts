import fc from "fast-check";
import { expect, test } from "vitest";
import { halfToNumber, numberToHalf } from "../package/tensor-bytes.js";
import { HALF_MAX, toHalf } from "./half.js";

test("every float16 comes back as itself", () => {
  const all = Array.from({ length: 65_536 }, (_, bits) => bits);
  const isNaNBits = (bits: number) => (bits & 0x7fff) > 0x7c00;
  expect(all.filter((bits) => !isNaNBits(bits) && numberToHalf(halfToNumber(bits)) !== bits)).toEqual([]);
  expect(all.filter((bits) => isNaNBits(bits) && !isNaNBits(numberToHalf(halfToNumber(bits))))).toEqual([]);
});

test("values in between go to the nearer neighbour, ties to the even one", () => {
  const wrong: number[] = [];
  for (let bits = 0; bits < 0x7bff; bits++) {
    const low = halfToNumber(bits);
    const high = halfToNumber(bits + 1);
    // Exact: half of a float16 step needs one more bit, and float32 has thirteen.
    const middle = (low + high) / 2;
    const even = bits % 2 === 0 ? bits : bits + 1;
    const right =
      numberToHalf(middle) === even &&
      numberToHalf(-middle) === (even | 0x8000) &&
      numberToHalf(Math.fround(low + (high - low) * 0.499)) === bits &&
      numberToHalf(Math.fround(low + (high - low) * 0.501)) === bits + 1;
    if (!right) wrong.push(bits);
  }
  expect(wrong).toEqual([]);
});

test("a rounded float32 is as near as any float16", () => {
  fc.assert(
    fc.property(fc.float({ min: -HALF_MAX, max: HALF_MAX, noNaN: true }), (value) => {
      const bits = numberToHalf(value);
      const error = Math.abs(halfToNumber(bits) - value);
      const magnitude = bits & 0x7fff;
      for (const next of [magnitude - 1, magnitude + 1]) {
        if (next < 0 || next > 0x7bff) continue;
        const other = Math.abs(halfToNumber(next | (bits & 0x8000)) - value);
        expect(error).toBeLessThanOrEqual(other);
      }
    }),
  );
});

test("subnormals, the ends of the range and what lies beyond", () => {
  expect(numberToHalf(2 ** -24)).toBe(1);
  expect(numberToHalf(2 ** -25)).toBe(0);
  expect(numberToHalf(Math.fround(2 ** -25 * 1.001))).toBe(1);
  expect(numberToHalf(3 * 2 ** -25)).toBe(2);
  expect(numberToHalf(-(2 ** -26))).toBe(0x8000);
  expect(numberToHalf(65_519)).toBe(0x7bff);
  expect(numberToHalf(65_520)).toBe(0x7c00);
  expect(numberToHalf(Number.NEGATIVE_INFINITY)).toBe(0xfc00);
  const { data, clipped } = toHalf(Float32Array.of(1e6, -70_000, 65_504, 1, Number.POSITIVE_INFINITY));
  expect([...data].map(halfToNumber)).toEqual([65_504, -65_504, 65_504, 1, Number.POSITIVE_INFINITY]);
  expect(clipped).toBe(2);
});
