import { expect, test } from "vitest";
import { searchNearBase } from "./near-base-search.js";
import type { StaticQuantizer } from "./quantize.js";

/** A model of one byte: 255 where it was rounded, else a hundredth of its change cost. */
const quantizer: StaticQuantizer = {
  floatBytes: new Uint8Array(),
  kept: [],
  quantizable: [],
  rewrite: (_, changeCost) => Uint8Array.of(changeCost === undefined ? 255 : changeCost * 100),
  quantize: () => Promise.reject(new Error("only models are asked for")),
};
const search = (accuracies: (cost: number | undefined) => number[]) =>
  searchNearBase(quantizer, {
    evaluate: ([byte]) => Promise.resolve(accuracies(byte === 255 ? undefined : byte! / 100)),
  });

test("the highest cost at which every part holds is taken, within half a point", async () => {
  const found = await search((cost) => (cost === undefined ? [0.9, 0.8] : [0.9, cost > 0.5 ? 0.79 : 0.796]));
  expect(found).toMatchObject({ changeCost: 0.5, bytes: Uint8Array.of(50), rounded: Uint8Array.of(255) });
  expect(found.trail.map(({ changeCost }) => changeCost)).toEqual([undefined, 2, 1, 0.5]);
});

test.each([
  ["no cost holds", (cost: number | undefined) => [cost === undefined ? 0.9 : 0.89]],
  ["a model tells nothing", (cost: number | undefined) => [cost === undefined ? 0.9 : Number.NaN]],
  ["there is nothing to judge by", () => []],
])("where %s the model is rounded", async (_, accuracies) => {
  expect(await search(accuracies)).toMatchObject({ changeCost: undefined, bytes: Uint8Array.of(255) });
});
