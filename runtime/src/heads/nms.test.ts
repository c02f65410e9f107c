import type { Box } from "@fieldloop/protocol";
import fc from "fast-check";
import { expect, test } from "vitest";
import { intersectionOverUnion, keepBest } from "./nms.js";

/** {@link keepBest} over boxes in any order. */
function suppressOverlaps(boxes: readonly Box[], iouThreshold: number, detectionsMax: number): Box[] {
  const ordered = boxes.toSorted((a, b) => b.score - a.score);
  const corners = Float64Array.from(ordered.flatMap(({ x0, y0, x1, y1 }) => [x0, y0, x1, y1]));
  const classes = Uint16Array.from(ordered, (one) => one.class);
  return keepBest(corners, classes, iouThreshold, detectionsMax, "class").map((at) => ordered[at]!);
}

const unit = fc.integer({ min: 0, max: 20 }).map((value) => value / 20);
const box: fc.Arbitrary<Box> = fc
  .tuple(unit, unit, unit, unit, fc.integer({ min: 0, max: 2 }), unit)
  .map(([a, b, c, d, label, score]) => ({
    x0: Math.min(a, c),
    y0: Math.min(b, d),
    x1: Math.max(a, c),
    y1: Math.max(b, d),
    class: label,
    score,
  }));
const boxes = fc.array(box, { maxLength: 40 });
const threshold = fc.constantFrom(0, 0.3, 0.5, 0.9);

test("intersection over union, by hand", () => {
  const a = { x0: 0, y0: 0, x1: 0.4, y1: 0.4, class: 0, score: 1 };
  const b = { x0: 0.2, y0: 0, x1: 0.6, y1: 0.4, class: 0, score: 1 };
  expect(intersectionOverUnion(a, b)).toBeCloseTo(0.08 / 0.24, 9);
  expect(intersectionOverUnion(a, a)).toBe(1);
  expect(intersectionOverUnion(a, { ...a, x1: 0 })).toBe(0);
});

test("what is kept does not overlap within a class, comes best first, and is some of what was given", () => {
  fc.assert(
    fc.property(boxes, threshold, (given, iouThreshold) => {
      const kept = suppressOverlaps(given, iouThreshold, 100);
      kept.forEach((one, at) => {
        expect(given).toContain(one);
        if (at > 0) expect(kept[at - 1]!.score).toBeGreaterThanOrEqual(one.score);
        for (const other of kept.slice(at + 1)) {
          if (other.class === one.class)
            expect(intersectionOverUnion(one, other)).toBeLessThanOrEqual(iouThreshold);
        }
      });
    }),
  );
});

test("what is dropped is covered by a kept box of its class with at least its score", () => {
  fc.assert(
    fc.property(boxes, threshold, (given, iouThreshold) => {
      const kept = suppressOverlaps(given, iouThreshold, 100);
      for (const dropped of given.filter((one) => !kept.includes(one))) {
        const covered = kept.some(
          (one) =>
            one.class === dropped.class &&
            one.score >= dropped.score &&
            intersectionOverUnion(one, dropped) > iouThreshold,
        );
        expect(covered).toBe(true);
      }
    }),
  );
});

test("suppressing twice changes nothing, classes do not meet, and the limit holds", () => {
  fc.assert(
    fc.property(boxes, threshold, fc.integer({ min: 1, max: 5 }), (given, iouThreshold, detectionsMax) => {
      const kept = suppressOverlaps(given, iouThreshold, 100);
      expect(suppressOverlaps(kept, iouThreshold, 100)).toEqual(kept);
      for (const label of [0, 1, 2]) {
        const alone = suppressOverlaps(
          given.filter((one) => one.class === label),
          iouThreshold,
          100,
        );
        expect(kept.filter((one) => one.class === label)).toEqual(alone);
      }
      expect(suppressOverlaps(given, iouThreshold, detectionsMax)).toEqual(kept.slice(0, detectionsMax));
    }),
  );
});
