import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratchFolder } from "../testing/package.test.kit.js";
import { Quarantine } from "./quarantine.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(() => folder.remove());

const hashOf = (digit: string): string => digit.repeat(64);
const [A, B] = [hashOf("a"), hashOf("b")];
const ignore = (): void => undefined;

describe("Quarantine", () => {
  it.each([
    ["a native crash", { reason: "SIGFPE", unresponsive: false, isOnlyOne: true }, true],
    ["a run that never ended", { reason: "SIGKILL", unresponsive: true, isOnlyOne: true }, true],
    ["an end from outside", { reason: "SIGKILL", unresponsive: false, isOnlyOne: true }, false],
    [
      "a native crash with others in hand",
      { reason: "SIGFPE", unresponsive: false, isOnlyOne: false },
      false,
    ],
  ])("after %s puts the frame away, or looks at it the next time", async (_, end, isCertain) => {
    const quarantine = await Quarantine.load(folder.path, ignore);
    expect(await quarantine.judge(A, end)).toBe(isCertain);
    expect(quarantine.frames).toEqual(isCertain ? [A] : []);
    expect(quarantine.suspects).toEqual(isCertain ? [] : [A]);
    expect(await quarantine.judge(A, end)).toBe(!isCertain);
    expect(quarantine.frames).toEqual([A]);
    expect(quarantine.suspects).toEqual([]);
  });

  it("finds the guilty one of two by itself, lets the other go, and keeps that over a start", async () => {
    const quarantine = await Quarantine.load(folder.path, ignore);
    const together = { reason: "SIGSEGV", unresponsive: false, isOnlyOne: false };
    await quarantine.judge(A, together);
    await quarantine.judge(B, together);
    expect(quarantine.suspects).toEqual([A, B]);
    expect(await quarantine.judge(B, { ...together, isOnlyOne: true })).toBe(true);
    const later = await Quarantine.load(folder.path, ignore);
    expect(later.frames).toEqual([B]);
    expect(later.suspects).toEqual([]);
  });
});
