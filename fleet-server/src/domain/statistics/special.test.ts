import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  findRoot,
  logAdd,
  logBeta,
  logGamma,
  logIncompleteBeta,
  logNormalTail,
  logOneMinusExp,
  logStudentTail,
  normalToStudent,
  studentToNormal,
} from "./special.js";

describe("special functions", () => {
  it.each([
    [0.5, 0.5 * Math.log(Math.PI)],
    [1, 0],
    [5, Math.log(24)],
    [100.5, 361.435_540_467_777_6],
    [1e7, 151_180_949.369_473_9],
  ])("ln Γ(%f)", (x, value) => {
    expect(Math.abs(logGamma(x) - value)).toBeLessThanOrEqual(1e-14 * Math.abs(value) + 1e-13);
  });

  it("give B(2, 3) = 1/12", () => {
    expect(Math.exp(logBeta(2, 3))).toBeCloseTo(1 / 12, 13);
  });

  it.each([
    // Sums of binomial probabilities, by hand.
    [0.3, 2, 5, 0.579_825],
    [0.5, 3, 3, 0.5],
    [0.9, 1, 1, 0.9],
    [0.2, 1, 4, 1 - 0.8 ** 4],
  ])("I_%f(%f, %f)", (x, a, b, value) => {
    const { below, above } = logIncompleteBeta(x, a, b);
    expect(Math.exp(below)).toBeCloseTo(value, 12);
    expect(Math.exp(above)).toBeCloseTo(1 - value, 12);
  });

  it("hold the incomplete beta function's symmetry and order up to ten million", () => {
    const shape = fc.double({ min: 0.5, max: 1e7, noNaN: true });
    const place = fc.double({ min: 1e-6, max: 1 - 1e-6, noNaN: true });
    fc.assert(
      fc.property(place, shape, shape, (x, a, b) => {
        const one = logIncompleteBeta(x, a, b);
        const other = logIncompleteBeta(1 - x, b, a);
        expect(one.below).toBeLessThanOrEqual(0);
        expect(Math.exp(logAdd(one.below, one.above))).toBeCloseTo(1, 9);
        const bound = 1e-6 * (1 + Math.abs(one.below) + Math.abs(one.above));
        // Where one is within rounding of 0, so is the other.
        expect(Math.abs(Math.max(one.below, -700) - Math.max(other.above, -700))).toBeLessThan(bound);
      }),
      { numRuns: 200 },
    );
  });

  it.each([
    [0, 0.5],
    [1.959_963_984_540_054, 0.025],
    [-1.644_853_626_951_472_6, 0.95],
    [3.090_232_306_167_813, 0.001],
    [6, 9.865_876_450_376_946e-10],
  ])("normal tail beyond %f", (x, value) => {
    expect(Math.exp(logNormalTail(x)) / value).toBeCloseTo(1, 11);
  });

  it("reach into tails that no double holds", () => {
    expect(logNormalTail(40)).toBeCloseTo(-804.608_442_013_754, 9);
    expect(logNormalTail(-40)).toBeCloseTo(0, 300);
  });

  it.each([
    [12.706_204_736_174_7, 1, 0.025],
    [2.228_138_851_964_94, 10, 0.025],
    [-1.812_461_122_811_68, 10, 0.95],
  ])("Student's tail beyond %f with %i degrees", (t, degrees, value) => {
    expect(Math.exp(logStudentTail(t, degrees))).toBeCloseTo(value, 11);
  });

  it("take Student's quantiles to normal ones and back", () => {
    const any = fc.double({ min: -30, max: 30, noNaN: true });
    const degrees = fc.double({ min: 2, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(any, degrees, (t, nu) => {
        const z = studentToNormal(t, nu);
        expect(Math.abs(z)).toBeLessThanOrEqual(Math.abs(t) + 1e-9);
        expect(normalToStudent(z, nu)).toBeCloseTo(t, 5);
      }),
      { numRuns: 200 },
    );
    expect(studentToNormal(5, Number.POSITIVE_INFINITY)).toBe(5);
  });

  it("give ln(1 - e^x) at both ends, and roots", () => {
    expect(logOneMinusExp(-1e-20)).toBeCloseTo(Math.log(1e-20), 10);
    expect(logOneMinusExp(-50)).toBeCloseTo(-Math.exp(-50), 30);
    expect(findRoot((x) => x * x - 2, 0, 2)).toBeCloseTo(Math.SQRT2, 11);
  });
});
