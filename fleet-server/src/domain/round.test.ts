import { describe, expect, it } from "vitest";
import { Round } from "./round.js";

describe("a round", () => {
  it("goes through everything a part at a time, and begins again", () => {
    const round = new Round(new Set([1, 2, 3, 4, 5]));
    expect([round.take(2), round.take(2), round.take(2)]).toEqual([
      [1, 2],
      [3, 4],
      [5, 1],
    ]);
  });

  it("gives each item once where more are asked for than there are, and nothing of an empty set", () => {
    const items = new Set([1, 2]);
    const round = new Round(items);
    expect(round.take(9)).toEqual([1, 2]);
    items.clear();
    expect(round.take(9)).toEqual([]);
  });

  it("sees what comes and goes meanwhile", () => {
    const items = new Set([1, 2, 3]);
    const round = new Round(items);
    expect(round.take(1)).toEqual([1]);
    items.delete(2);
    items.add(4);
    expect(round.take(2)).toEqual([3, 4]);
  });
});
