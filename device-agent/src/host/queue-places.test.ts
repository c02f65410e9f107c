import { inputSchema } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { placesFor } from "./queue-places.js";

const window = (hop: number, sampleRateHz: number) => {
  const shape = { kind: "window", name: "x", length: hop, normalization: "none", dims: [1, hop] };
  return { inputs: [inputSchema.parse({ ...shape, hop, sampleRateHz })] };
};
const row = {
  kind: "table",
  name: "x",
  dims: [1, 1],
  columns: [{ name: "a", encoding: { kind: "number" } }],
};

describe("places for frames that wait", () => {
  it.each([
    ["images", { inputs: [] }, 1, 2],
    ["images that may run together", { inputs: [] }, 8, 8],
    ["rows", { inputs: [inputSchema.parse(row)] }, 1, 32],
    ["windows of 32 ms", window(512, 16_000), 1, 15],
    ["windows of a second", window(2_560, 2_560), 1, 2],
    ["windows of a tenth of a millisecond", window(1, 10_000), 1, 32],
    ["windows of a second that may run together", window(2_560, 2_560), 16, 16],
  ])("are enough for %s, and no more", (_, manifest, batchMax, places) => {
    expect(placesFor(manifest, batchMax)).toBe(places);
  });
});
