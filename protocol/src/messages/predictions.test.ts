import { deflateSync } from "fflate";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeCbor, encodeCbor, type CborValue } from "../cbor.js";
import { FieldloopError } from "../errors.js";
import {
  CONFIDENCE_SCALE,
  LATENCY_SCALE,
  SIGNALS,
  SIGNAL_NAMES,
  dequantize,
  quantize,
  type SignalName,
} from "../signals.js";
import {
  decodePredictions,
  encodePredictions,
  predictionRow,
  type PredictionBatch,
  type PredictionRow,
} from "./predictions.js";

const box = fc.record({
  x0: fc.double({ min: 0, max: 1, noNaN: true }),
  y0: fc.double({ min: 0, max: 1, noNaN: true }),
  x1: fc.double({ min: 0, max: 1, noNaN: true }),
  y1: fc.double({ min: 0, max: 1, noNaN: true }),
  class: fc.integer({ min: 0, max: 400 }),
  score: fc.double({ min: 0, max: 1, noNaN: true }),
});
const batchArbitrary = fc
  .record({
    boot: fc.integer({ min: 1, max: 1e9 }),
    seq: fc.integer({ min: 1, max: 1e9 }),
    prev: fc.nat(1e9),
    firstN: fc.nat(1e12),
    signalNames: fc.uniqueArray(fc.constantFrom(...SIGNAL_NAMES), { maxLength: 6 }),
    withBoxes: fc.boolean(),
    start: fc.integer({ min: 0, max: 2e12 }),
    rows: fc.array(
      fc.record({
        gap: fc.integer({ min: 0, max: 65_535 }),
        class: fc.integer({ min: -1, max: 700 }),
        confidence: fc.double({ min: 0, max: 1, noNaN: true }),
        latencyMs: fc.double({ min: 0, max: 60_000, noNaN: true }),
        signals: fc.array(fc.double({ noNaN: true }), { minLength: 6, maxLength: 6 }),
        boxes: fc.array(box, { maxLength: 4 }),
      }),
      { minLength: 1, maxLength: 60 },
    ),
  })
  .map(({ start, rows, withBoxes, signalNames, ...header }): PredictionBatch => {
    let time = start;
    return {
      ...header,
      signalNames,
      versionRef: { model: "parts", version: 7, packagePrefix: "0123456789abcdef" },
      rows: rows.map(({ gap, boxes, signals, ...row }, index): PredictionRow => {
        if (index > 0) time += gap;
        return {
          ...row,
          time,
          signals: signals.slice(0, signalNames.length),
          ...(withBoxes ? { boxes } : {}),
        };
      }),
    };
  });

describe("prediction batch", () => {
  it("keeps every row: exact where it is exact, one step where it is quantized", () => {
    fc.assert(
      fc.property(batchArbitrary, (batch) => {
        const columns = decodePredictions(encodePredictions(batch));
        expect(columns.count).toBe(batch.rows.length);
        batch.rows.forEach((row, index) => {
          const read = predictionRow(columns, index);
          expect(read.n).toBe(batch.firstN + index);
          expect(read.time).toBe(row.time);
          expect(read.class).toBe(row.class);
          expect(columns.confidence[index]).toBe(quantize(row.confidence, CONFIDENCE_SCALE));
          expect(columns.latency[index]).toBe(quantize(row.latencyMs, LATENCY_SCALE));
          expect(read.boxes?.map((b) => b.class)).toEqual(row.boxes?.map((b) => b.class));
          row.boxes?.forEach((b, at) => expect(read.boxes![at]!.x0).toBeCloseTo(b.x0, 4));
        });
      }),
      { numRuns: 300 },
    );
  });

  it("answers hostile bytes with a coded error, nothing else", () => {
    fc.assert(
      fc.property(
        batchArbitrary,
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
        (batch, edits) => {
          const bytes = encodePredictions(batch);
          for (const [at, value] of edits) bytes[at % bytes.length] = value;
          try {
            decodePredictions(bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(FieldloopError);
          }
        },
      ),
      { numRuns: 1_500 },
    );
  });

  it("refuses a deflate bomb without inflating it", () => {
    const wire = [...(decodeCbor(encodePredictions(oneRow())) as CborValue[])];
    wire[11] = deflateSync(new Uint8Array(60_000));
    const before = process.memoryUsage().arrayBuffers;
    expect(() => decodePredictions(encodeCbor(wire))).toThrow(FieldloopError);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_000_000);
  });

  it.each<[string, (wire: CborValue[]) => void]>([
    ["a count beyond its columns", (wire) => (wire[8] = 9)],
    ["a count of zero", (wire) => (wire[8] = 0)],
    ["an unknown signal", (wire) => (wire[10] = Uint8Array.of(250))],
    ["a short package prefix", (wire) => (wire[5] = Uint8Array.of(1))],
    ["a boot of zero", (wire) => (wire[0] = 0)],
    ["text for a payload", (wire) => (wire[11] = "x")],
    ["a missing field", (wire) => wire.splice(11, 1)],
    ["an unknown flag", (wire) => (wire[9] = 64)],
    ["bytes after the last column", (wire) => (wire[11] = deflateSync(new Uint8Array(40)))],
  ])("refuses %s", (_, spoil) => {
    const wire = [...(decodeCbor(encodePredictions(oneRow())) as CborValue[])];
    spoil(wire);
    expect(() => decodePredictions(encodeCbor(wire))).toThrow(FieldloopError);
  });

  it("ignores elements that a later version may add", () => {
    const wire = [...(decodeCbor(encodePredictions(oneRow())) as CborValue[]), "later", 7];
    expect(decodePredictions(encodeCbor(wire)).count).toBe(1);
  });

  it("takes at most 6 bytes a prediction with four signals at 500 a message", () => {
    const bytes = encodePredictions(stream(500));
    expect(bytes.length / 500).toBeLessThan(6);
  });
});

describe("column scales", () => {
  it("quantize to within half a step and never leave 0..255", () => {
    fc.assert(
      fc.property(fc.constantFrom(...SIGNAL_NAMES), fc.double(), (name: SignalName, value) => {
        const code = quantize(value, SIGNALS[name].scale);
        expect(Number.isInteger(code) && code >= 0 && code <= 255).toBe(true);
        expect(quantize(dequantize(code, SIGNALS[name].scale), SIGNALS[name].scale)).toBe(code);
      }),
    );
  });
});

function oneRow(): PredictionBatch {
  return { ...stream(1) };
}

/** A camera at 15 fps whose classes come in runs, as parts on a belt do; a fixed linear congruential sequence. */
function stream(count: number): PredictionBatch {
  let state = 12_345;
  const random = (): number => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
  let time = 1_790_000_000_000;
  const rows = Array.from({ length: count }, (): PredictionRow => {
    time += 66 + Math.floor(random() * 3);
    const doubt = random() ** 4;
    const signals = [doubt * 0.8, 1 - doubt, -8 + doubt * 3, 1 + doubt * 2];
    return {
      time,
      class: Math.floor(random() * 8),
      confidence: 1 - doubt / 2,
      latencyMs: 1.5 + random() * 0.2,
      signals,
    };
  });
  return {
    boot: 3,
    seq: 17,
    prev: 0,
    firstN: 9_000,
    versionRef: { model: "parts", version: 1, packagePrefix: "0123456789abcdef" },
    signalNames: ["entropy", "margin", "energy", "novelty"],
    rows,
  };
}
