import { describe, expect, it } from "vitest";
import { Random } from "../simulate/random.js";
import { fitTemperature, logitSpread, TEMPERATURE_LIMITS } from "./temperature.js";

/** Logits whose labels are drawn from softmax(logits / temperature). */
function drawn(rows: number, classes: number, temperature: number) {
  const random = new Random(11);
  const logits = Float32Array.from({ length: rows * classes }, () => 2 * temperature * random.normal());
  const labels = Array.from({ length: rows }, (_, row) => {
    const shares = Array.from(logits.subarray(row * classes, (row + 1) * classes), (z) =>
      Math.exp(z / temperature),
    );
    let left = random.uniform() * shares.reduce((sum, share) => sum + share, 0);
    return Math.max(
      0,
      shares.findIndex((share) => (left -= share) <= 0),
    );
  });
  return { logits, labels };
}

describe("fitTemperature", () => {
  it.each([0.5, 1, 3, 300])("finds %d back from labels that were drawn at it", (temperature) => {
    const { logits, labels } = drawn(20_000, 5, temperature);
    expect(Math.abs(fitTemperature(logits, labels) / temperature - 1)).toBeLessThan(0.03);
  });

  it("stays within its limits when the labels cannot tell", () => {
    const certain = Float32Array.of(1, 0, 0, 1);
    expect(fitTemperature(certain, [0, 1])).toBeCloseTo(TEMPERATURE_LIMITS.min, 6);
    expect(fitTemperature(certain, [1, 0])).toBeCloseTo(TEMPERATURE_LIMITS.max, 0);
  });

  it("refuses logits that do not fit the labels", () => {
    expect(() => fitTemperature(new Float32Array(5), [0, 1])).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});

describe("logitSpread", () => {
  it("is the mean standard deviation of a row", () => {
    expect(logitSpread(Float32Array.of(1, -1, 3, -3), 2)).toBe(2);
  });
});
