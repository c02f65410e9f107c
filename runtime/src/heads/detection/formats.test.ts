import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planResize } from "../../input/geometry.js";
import { readDetection } from "../detection.js";
import {
  ENCODERS,
  HEIGHT,
  LABELS,
  WIDTH,
  cornersOf,
  detectionHead,
  float,
  type Truth,
} from "./encoders.test.kit.js";

const size = { width: WIDTH, height: HEIGHT };
const share = fc.integer({ min: 1, max: 999 }).map((value) => value / 1000);

/** Boxes in cells of a 5 × 3 grid, each inside its cell, so that none overlaps another. */
const truths: fc.Arbitrary<Truth[]> = fc
  .uniqueArray(fc.integer({ min: 0, max: 14 }), { minLength: 0, maxLength: 10 })
  .chain((cells) =>
    fc.tuple(
      ...cells.map((cell) =>
        fc
          .tuple(share, share, fc.integer({ min: 0, max: LABELS.length - 1 }), share)
          .map(([a, b, label, s]) => ({
            x: ((cell % 5) + 0.5) / 5,
            y: (Math.floor(cell / 5) + 0.5) / 3,
            width: 0.02 + 0.17 * a,
            height: 0.02 + 0.3 * b,
            label,
            score: 0.32 + 0.6 * s,
          })),
      ),
    ),
  );
const sources = fc.tuple(
  fc.integer({ min: 40, max: 2000 }),
  fc.integer({ min: 40, max: 2000 }),
  fc.constantFrom("stretch" as const, "letterbox" as const),
);

const isAboutZero = (value: number): boolean => Math.abs(value) < 1e-5;

describe.each(Object.keys(ENCODERS))("%s", (name) => {
  const encode = ENCODERS[name]!;
  it("gives back the boxes that were encoded, in the source image", () => {
    fc.assert(
      fc.property(truths, sources, (given, [width, height, resize]) => {
        const { head, outputs } = encode(given);
        const { geometry } = planResize({ ...size, resize }, width, height);
        const { boxes } = readDetection(head, outputs, { size, geometry });
        const clip = (value: number): number => Math.min(Math.max(value, 0), 1);
        const inSource = [...given].map((truth) => {
          const [x0, y0, x1, y1] = cornersOf(truth);
          const { scaleX, offsetX, scaleY, offsetY } = geometry;
          return {
            x0: x0 * scaleX + offsetX,
            y0: y0 * scaleY + offsetY,
            x1: x1 * scaleX + offsetX,
            y1: y1 * scaleY + offsetY,
            class: truth.label,
            score: truth.score,
          };
        });
        // Whether a box that touches the image from outside has a sliver in it, float32 decides.
        fc.pre(inSource.every(({ x0, y0, x1, y1 }) => ![x1, y1, 1 - x0, 1 - y0].some(isAboutZero)));
        const wanted = inSource
          .map((box) => ({ ...box, x0: clip(box.x0), y0: clip(box.y0), x1: clip(box.x1), y1: clip(box.y1) }))
          .filter((box) => box.x1 > box.x0 && box.y1 > box.y0);
        expect(boxes.length).toBe(wanted.length);
        for (const box of boxes) {
          const match = wanted.find(
            (other) =>
              other.class === box.class &&
              Math.abs(other.score - box.score) < 1e-3 &&
              Math.abs(other.x0 - box.x0) < 1e-3 * geometry.scaleX &&
              Math.abs(other.x1 - box.x1) < 1e-3 * geometry.scaleX &&
              Math.abs(other.y0 - box.y0) < 1e-3 * geometry.scaleY &&
              Math.abs(other.y1 - box.y1) < 1e-3 * geometry.scaleY,
          );
          expect(match, JSON.stringify({ box, wanted })).toBeDefined();
        }
      }),
      { numRuns: 40 },
    );
  });

  it("never gives a box that is no box, whatever the outputs hold", () => {
    const odd = fc.constantFrom(Number.NaN, Infinity, -Infinity, 1e30, -1e30, 0, 0.5, 0.99, 2);
    fc.assert(
      fc.property(fc.array(odd, { minLength: 1, maxLength: 60 }), fc.nat(1000), (values, start) => {
        const { head, outputs } = encode([]);
        for (const { data } of Object.values(outputs)) {
          if (!(data instanceof Float32Array)) continue;
          for (let at = start % data.length; at < data.length; at += 3)
            data[at] = values[at % values.length]!;
        }
        try {
          const result = readDetection(head, outputs, { size });
          expect(result.boxes.length).toBeLessThanOrEqual(head.detectionsMax);
          expect(Number.isFinite(result.confidence + result.margin + result.entropy)).toBe(true);
          for (const box of result.boxes) {
            expect([box.x0, box.y0, box.x1, box.y1].every((value) => value >= 0 && value <= 1)).toBe(true);
            expect(box.x1 > box.x0 && box.y1 > box.y0).toBe(true);
            expect(LABELS[box.class]).toBeDefined();
          }
        } catch (error) {
          expect(error).toMatchObject({ code: "model_output_invalid" });
        }
      }),
      { numRuns: 60 },
    );
  });

  it("refuses outputs of another shape, and scores that are no numbers", () => {
    const { head, outputs } = encode([]);
    for (const output of Object.keys(outputs)) {
      const wrong = { ...outputs, [output]: float([1, 3, 17]) };
      expect(() => readDetection(head, wrong, { size })).toThrow(
        expect.objectContaining({ code: "model_output_invalid" }),
      );
      const { [output]: _, ...missing } = outputs;
      expect(() => readDetection(head, missing, { size })).toThrow(/the run has no tensor/);
    }
    for (const { data } of Object.values(outputs)) if (data instanceof Float32Array) data.fill(Number.NaN);
    expect(() => readDetection(head, outputs, { size })).toThrow(/no score that is a number/);
  });
});

describe("more than boxes", () => {
  it("reads the points of a pose, in the source image", () => {
    const head = detectionHead({ labels: ["person"], keypoints: { labels: ["nose", "ear"], scored: true } });
    const boxes = float([1, 5 + 6, 9]);
    const column = [160, 96, 80, 60, 0.9, 160, 96, 0.8, 200, 48, 0.25];
    column.forEach((value, at) => (boxes.data[at * 9 + 4] = value));
    const geometry = { scaleX: 1, scaleY: 2, offsetX: 0, offsetY: -0.5 };
    const { keypoints } = readDetection(head, { boxes }, { size, geometry });
    expect(keypoints).toEqual([
      [
        {
          label: "nose",
          x: expect.closeTo(0.5, 6),
          y: expect.closeTo(0.5, 6),
          score: expect.closeTo(0.8, 6),
        },
        { label: "ear", x: expect.closeTo(0.625, 6), y: 0, score: 0.25 },
      ],
    ]);
  });

  it("cuts instance masks out of prototypes", () => {
    const head = detectionHead({ labels: ["thing"], masks: { prototypes: "protos", count: 2 } });
    // The first prototype is 1 in the left half, the second 1 in the upper half; -1 elsewhere.
    const protos = float([1, 2, 8, 8]);
    for (let at = 0; at < 64; at++) {
      protos.data[at] = at % 8 < 4 ? 1 : -1;
      protos.data[64 + at] = at < 32 ? 1 : -1;
    }
    const boxes = float([1, 7, 5]);
    [WIDTH / 2, HEIGHT / 2, WIDTH / 2, HEIGHT / 2, 0.9, 1, 0.5].forEach(
      (value, at) => (boxes.data[at * 5] = value),
    );
    const { masks } = readDetection(head, { boxes, protos }, { size });
    const row = [1, 1, 0, 0];
    expect(masks).toEqual([
      { width: 4, height: 4, classes: Uint8Array.from([...row, ...row, ...row, ...row]) },
    ]);
  });

  it("reads landmarks as offsets to the same prior boxes", () => {
    const head = detectionHead({
      format: "ssd",
      labels: ["face"],
      scores: "scores",
      keypoints: { labels: ["nose"], scored: false, output: "points" },
      anchors: {
        levels: [{ stride: 64, sizes: [[64, 64]] }],
        variances: [0.1, 0.2],
        centres: "stride",
        clip: false,
        decoded: false,
      },
    });
    const scores = float([1, 15, 2]);
    scores.data[7 * 2 + 1] = 0.9;
    const points = float([1, 15, 2]);
    points.data.set([2.5, -2.5], 14);
    const { boxes, keypoints } = readDetection(head, { boxes: float([1, 15, 4]), scores, points }, { size });
    // Cell 7 of a grid of 5 columns: the third of the second row.
    expect(boxes[0]).toMatchObject({ x0: expect.closeTo(128 / 320, 6), y0: expect.closeTo(64 / 192, 6) });
    expect(keypoints![0]![0]).toMatchObject({
      x: expect.closeTo(176 / 320, 6),
      y: expect.closeTo(80 / 192, 6),
    });
  });

  it("reads 8-bit outputs by their scale", () => {
    const head = detectionHead({
      format: "yolov10",
      quantization: { scale: 1, zeroPoint: -128 },
      labels: ["x", "y"],
    });
    const data = Int8Array.from([-128, -128, 0, -32, -127, -128]);
    const { boxes } = readDetection(head, { boxes: { type: "int8", dims: [1, 1, 6], data } }, { size });
    expect(boxes).toEqual([
      { x0: 0, y0: 0, x1: expect.closeTo(0.4, 6), y1: expect.closeTo(0.5, 6), class: 0, score: 1 },
    ]);
  });

  it("lets boxes of all classes compete, or none", () => {
    const twice: Truth = { x: 0.5, y: 0.5, width: 0.4, height: 0.4, label: 0, score: 0.9 };
    const { head, outputs } = ENCODERS.yolov8!([
      twice,
      { ...twice, label: 1, score: 0.8 },
      { ...twice, score: 0.7 },
    ]);
    const count = (suppression: "class" | "all" | "none") =>
      readDetection({ ...head, suppression }, outputs, { size }).boxes.length;
    expect([count("class"), count("all"), count("none")]).toEqual([2, 1, 3]);
  });

  it("wants to know how large the input is where boxes are in pixels", () => {
    const { head, outputs } = ENCODERS.yolov8!([]);
    expect(() => readDetection(head, outputs)).toThrow(expect.objectContaining({ code: "manifest_invalid" }));
    expect(readDetection({ ...head, inputSize: size }, outputs).boxes).toEqual([]);
  });
});
