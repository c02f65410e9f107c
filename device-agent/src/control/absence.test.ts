import { expect, it } from "vitest";
import { Absence } from "./absence.js";

it("tells a process that was away from one that is late, and gives the others time to say where they are", () => {
  const absence = new Absence(500, 2_000);
  expect(absence.note(10_000)).toBe(0);
  expect(absence.note(10_500)).toBe(0);
  expect(absence.note(12_900)).toBe(0);
  expect(absence.isGrace(12_900)).toBe(false);
  expect(absence.note(73_400)).toBe(60_000);
  expect([75_399, 75_400].map((now) => absence.isGrace(now))).toEqual([true, false]);
  expect(absence.note(73_900)).toBe(0);
});
