import { expect, it } from "vitest";
import { createAgentLog } from "../log.js";
import { MemoryCeiling } from "./memory-ceiling.js";
import { Warnings } from "./warnings.js";

const CEILING = 100 * 2 ** 20;
const MINUTE = 60_000;

/** Minutes at which a host is started anew that is `size(minutes since its start)` bytes large. */
function recycled(minutes: number, size: (age: number) => number): number[] {
  let now = 0;
  const clock = { now: () => now, monotonic: () => now };
  const log = createAgentLog({ level: "error", write: () => undefined });
  const warnings = new Warnings(clock, log, () => undefined);
  const ceiling = new MemoryCeiling({ hostBytesMax: CEILING, clock, warnings });
  const at: number[] = [];
  for (let minute = 0; minute < minutes; minute++) {
    now = minute * MINUTE;
    if (ceiling.isExceeded(size(minute - (at.at(-1) ?? 0)))) at.push(minute);
    now += MINUTE / 2;
    ceiling.isExceeded(size(minute - (at.at(-1) ?? 0)));
  }
  return at;
}

it("starts a host that grows anew each time that it is too large, and one that is always too large ever more rarely", () => {
  const grows = (age: number): number => CEILING + (age - 20) * 2 ** 20;
  expect(recycled(100, grows)).toEqual([21, 42, 63, 84]);
  const isLarge = (): number => 2 * CEILING;
  expect(recycled(300, isLarge)).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
});
