import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LaneNumbers, NumberBlocks } from "../host/numbers.js";
import { AGENT_LIMITS } from "../limits.js";
import { PredictionNumbers } from "./prediction-numbers.js";

const BLOCK = AGENT_LIMITS.predictionBlock;
const LANES = ["a", "b", "c"];

describe("PredictionNumbers", () => {
  it("gives one lane numbers that follow on, over blocks and hosts", () => {
    const numbers = new PredictionNumbers();
    let next = 0;
    for (let host = 0; host < 3; host++) {
      const lane = new LaneNumbers(new NumberBlocks(numbers.nextBlock), numbers.rangeOf("main"));
      for (let report = 0; report < 7; report++) {
        const first = lane.take();
        expect(first).toBe(next);
        for (let row = 1; row < 400; row++) lane.take();
        numbers.use("main", first, 400);
        next += 400;
      }
      // What this host numbered and could not tell any more is numbered again by the next.
      lane.take();
    }
    expect(numbers.count).toBe(next);
    expect([numbers.has(next - 1), numbers.has(next)]).toEqual([true, false]);
  });

  it("refuses numbers that are used, skipped or another lane's, and takes none of them", () => {
    const numbers = new PredictionNumbers();
    numbers.use("a", 0, 10);
    for (const [lane, firstN] of [
      ["a", 11],
      ["a", 9],
      ["a", BLOCK],
      ["b", 10],
      ["b", 0],
      ["b", BLOCK + 1],
      ["b", BLOCK * 100],
    ] as const) {
      expect(() => numbers.use(lane, firstN, 5)).toThrow("Number predictions");
    }
    expect(numbers.count).toBe(10);
    expect(numbers.rangeOf("a")).toEqual({ next: 10, end: BLOCK });
  });

  it("counts and knows exactly what was told, whatever the lanes and hosts do", () => {
    const turn = fc.record({
      lane: fc.constantFrom(...LANES),
      rows: fc.integer({ min: 1, max: 700 }),
      told: fc.boolean(),
      dies: fc.integer({ min: 0, max: 9 }).map((roll) => roll === 0),
    });
    const property = fc.property(fc.array(turn, { maxLength: 80 }), (turns) => {
      const numbers = new PredictionNumbers();
      const told = new Set<number>();
      let host = newHost(numbers);
      for (const { lane, rows, told: sends, dies } of turns) {
        const queue = host.get(lane)!;
        for (let row = 0; row < rows; row++) queue.waiting.push(queue.numbers.take());
        // Rows of a lane come in order; those of another may come first.
        if (sends)
          for (const run of runsOf(queue.waiting.splice(0))) {
            numbers.use(lane, run[0]!, run.length);
            for (const n of run) {
              expect(told.has(n)).toBe(false);
              told.add(n);
            }
          }
        if (dies) host = newHost(numbers);
      }
      expect(numbers.count).toBe(told.size);
      for (let n = 0; n < (numbers.nextBlock + 1) * BLOCK; n++) {
        if (numbers.has(n) !== told.has(n)) throw new Error(`${n} is ${told.has(n) ? "" : "not "}told`);
      }
    });
    fc.assert(property, { numRuns: 25 });
  });
});

function newHost(numbers: PredictionNumbers): Map<string, { numbers: LaneNumbers; waiting: number[] }> {
  const blocks = new NumberBlocks(numbers.nextBlock);
  return new Map(
    LANES.map((lane) => [lane, { numbers: new LaneNumbers(blocks, numbers.rangeOf(lane)), waiting: [] }]),
  );
}

/** Cut where a number does not follow on, and into messages of at most 500 rows. */
function runsOf(numbers: readonly number[]): number[][] {
  const runs: number[][] = [];
  for (const n of numbers) {
    const last = runs.at(-1);
    if (last && last.at(-1) === n - 1 && last.length < AGENT_LIMITS.reportRowsMax) last.push(n);
    else runs.push([n]);
  }
  return runs;
}
