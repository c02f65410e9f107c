import { describe, expect, it } from "vitest";
import { Random } from "@fieldloop/runtime/simulate";
import { AGENT_LIMITS } from "../limits.js";
import { type ThreadShare, whoLeaves } from "./thread-shares.js";

const share = (rate: number, runMs: number, mayLeave = true): ThreadShare => ({ rate, runMs, mayLeave });

describe("the host's own thread is left", () => {
  it.each<readonly [string, readonly ThreadShare[], number | undefined]>([
    ["by nobody where one model has it", [share(60, 15)], undefined],
    ["by nobody where two cameras have models of 3 ms", [share(30, 3), share(30, 3)], undefined],
    ["by the one that the other waits for", [share(30, 2), share(30, 12)], 1],
    ["by the one that many wait for", [share(30, 8), share(200, 0.4), share(200, 0.4)], 0],
    ["by none of two slow ones that hardly ever meet", [share(2, 15), share(2, 15)], undefined],
    ["by one where short runs fill it", [share(1_000, 0.45), share(1_000, 0.45)], 0],
    ["not by one that carries something", [share(30, 12, false), share(30, 2)], undefined],
    ["not for one that stands still", [share(30, 12), share(0, 3)], undefined],
  ])("%s", (_, shares, leaves) => {
    expect(whoLeaves(shares)).toBe(leaves);
  });

  it("where a simulated queue says that its thread is worth it, and not before", () => {
    for (const runMs of [3, 5, 8, 12]) {
      const shares = [share(20, runMs), share(30, 2)];
      const waitedMs = meanWaitOfOthers(shares, 0);
      const saved = waitedMs * 30 - 20 * AGENT_LIMITS.betweenThreadsMs;
      // Close to the bound it may say either.
      if (Math.abs(saved) > 2) expect([runMs, whoLeaves(shares)]).toEqual([runMs, saved > 0 ? 0 : undefined]);
    }
  });
});

/** Milliseconds that frames of the other models wait because of the one at `of`: arrivals at random, first come first served. */
function meanWaitOfOthers(shares: readonly ThreadShare[], of: number): number {
  const wait = (taken: readonly ThreadShare[]): number => {
    const random = new Random(5);
    const arrivals = taken
      .flatMap(({ rate, runMs }, model) => {
        let at = 0;
        return Array.from({ length: Math.round(rate * 2_000) }, () => {
          at -= (Math.log(1 - random.uniform()) * 1_000) / rate;
          return { at, runMs, model };
        });
      })
      .sort((a, b) => a.at - b.at);
    let free = 0;
    let sum = 0;
    let count = 0;
    for (const { at, runMs, model } of arrivals) {
      const begin = Math.max(at, free);
      free = begin + runMs;
      if (model === of) continue;
      sum += begin - at;
      count++;
    }
    return sum / count;
  };
  return wait(shares) - wait(shares.map((one, at) => (at === of ? { ...one, runMs: 0 } : one)));
}
