import { expect, test } from "vitest";
import { hashSeed, normalAt, Random } from "./random.js";

test("the same seed gives the same numbers, another seed others", () => {
  const draw = (...seed: number[]) => {
    const random = new Random(...seed);
    return Array.from({ length: 20 }, () => random.uint32());
  };
  expect(draw(7, 1)).toEqual(draw(7, 1));
  expect(draw(7, 1)).not.toEqual(draw(7, 2));
  expect(draw(7, 1)).not.toEqual(draw(1, 7));
  expect(hashSeed(2 ** 40)).not.toBe(hashSeed(2 ** 41));
});

test("uniform, integer and normal numbers have the moments they should", () => {
  const random = new Random(3);
  const count = 40_000;
  let [sum, normalSum, normalSquares] = [0, 0, 0];
  const bins = new Float64Array(6);
  for (let k = 0; k < count; k++) {
    sum += random.uniform();
    bins[random.int(6)]++;
    const normal = random.normal();
    normalSum += normal;
    normalSquares += normal * normal;
  }
  expect(sum / count).toBeCloseTo(0.5, 2);
  expect(normalSum / count).toBeCloseTo(0, 1);
  expect(normalSquares / count).toBeCloseTo(1, 1);
  // Six bins of 6,667 each; five deviations are 373.
  for (const bin of bins) expect(Math.abs(bin - count / 6)).toBeLessThan(373);
});

test("random access noise is white: neighbours do not follow each other", () => {
  let product = 0;
  const count = 20_000;
  for (let k = 0; k < count; k++) product += normalAt(5, k) * normalAt(5, k + 1);
  expect(Math.abs(product / count)).toBeLessThan(0.035);
});

test("shuffle keeps every value", () => {
  const values = new Random(1).shuffle(Uint32Array.from({ length: 50 }, (_, k) => k));
  expect([...values].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, k) => k));
  expect([...values]).not.toEqual(Array.from({ length: 50 }, (_, k) => k));
});
