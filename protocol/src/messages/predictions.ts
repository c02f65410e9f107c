import { deflateSync, inflateSync } from "fflate";
import { z } from "zod";
import { decodeCbor, encodeCbor } from "../cbor.js";
import { FieldloopError } from "../errors.js";
import { LIMITS } from "../limits.js";
import { countSchema, modelNameSchema, timeSchema, versionSchema } from "../names.js";
import {
  CONFIDENCE_SCALE,
  LATENCY_SCALE,
  SIGNALS,
  dequantize,
  quantize,
  signalNameById,
  type SignalName,
} from "../signals.js";
import { bootSchema, type Delivery } from "./delivery.js";

/** One prediction as a row; `class` indexes the labels of the version's first head, -1 where nothing was detected. */
export interface PredictionRow {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly class: number;
  readonly confidence: number;
  readonly latencyMs: number;
  /** One value for each of the batch's signals, in its order. */
  readonly signals: readonly number[];
  /** Detection heads only. */
  readonly boxes?: readonly Box[];
}

/** Corners in 0..1 of the input image. */
export interface Box {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
  readonly class: number;
  readonly score: number;
}

/** Which version made the predictions: the first 8 bytes of the package's SHA-256 tell apart what a name cannot. */
export interface VersionRef {
  readonly model: string;
  readonly version: number;
  /** 16 hexadecimal digits. */
  readonly packagePrefix: string;
}

export interface PredictionBatch extends Delivery {
  readonly versionRef: VersionRef;
  /** Number of the first row within the boot; the rows after it count on from there. */
  readonly firstN: number;
  readonly signalNames: readonly SignalName[];
  readonly rows: readonly PredictionRow[];
}

/** The same batch as columns, views on one buffer: what a reader of many rows uses. Codes are 8-bit; see {@link dequantize}. */
export interface PredictionColumns extends Delivery {
  readonly versionRef: VersionRef;
  readonly firstN: number;
  readonly count: number;
  readonly signalNames: readonly SignalName[];
  /** Milliseconds since the epoch. */
  readonly time: Float64Array;
  readonly class: Int32Array;
  readonly confidence: Uint8Array;
  readonly latency: Uint8Array;
  readonly signals: readonly Uint8Array[];
  readonly boxes: readonly (readonly Box[])[] | undefined;
}

/**
 * Wire form: CBOR array `[boot, seq, prev, model, version, prefix, firstN, firstTime, count, flags, signalIds, payload]`; an array, because
 * a message of 30 rows cannot carry a name for each field; further elements are ignored. Payload: raw DEFLATE of the columns
 * one after the other: time deltas in ms (low bytes, high bytes), class (low bytes, and high bytes if wide), confidence,
 * latency, each signal, and for detections the number of boxes a row followed by the boxes' columns.
 */
const FLAG = { wideClass: 1, boxes: 2 } as const;

const wireSchema = z
  .tuple([
    bootSchema,
    z.int().min(1),
    countSchema,
    modelNameSchema,
    versionSchema,
    z.instanceof(Uint8Array).refine((bytes) => bytes.length === 8),
    countSchema,
    timeSchema,
    z.int().min(1).max(LIMITS.batchRowsMax),
    z.int().min(0).max(3),
    z.instanceof(Uint8Array).refine((bytes) => bytes.length <= LIMITS.batchSignalsMax),
    z.instanceof(Uint8Array),
  ])
  .rest(z.unknown());

/** @throws FieldloopError `batch_malformed` where rows contradict each other or a limit */
export function encodePredictions(batch: PredictionBatch): Uint8Array {
  const { rows, signalNames } = batch;
  const first = rows[0];
  if (!first || rows.length > LIMITS.batchRowsMax)
    malformed(`${rows.length} rows, wanted 1 to ${LIMITS.batchRowsMax}`);
  const wide = rows.some((row) => row.class > 254 || row.boxes?.some((box) => box.class > 254));
  const withBoxes = rows.some((row) => row.boxes !== undefined);
  const columns = new ColumnWriter();
  columns.u16(timeDeltas(rows));
  columns.classes(
    rows.map((row) => row.class),
    wide,
  );
  columns.u8(rows.map((row) => quantize(row.confidence, CONFIDENCE_SCALE)));
  columns.u8(rows.map((row) => quantize(row.latencyMs, LATENCY_SCALE)));
  signalNames.forEach((name, index) =>
    columns.u8(rows.map((row) => quantize(row.signals[index] ?? Number.NaN, SIGNALS[name].scale))),
  );
  if (withBoxes) writeBoxes(columns, rows, wide);
  return encodeCbor([
    batch.boot,
    batch.seq,
    batch.prev,
    batch.versionRef.model,
    batch.versionRef.version,
    hexToBytes(batch.versionRef.packagePrefix),
    batch.firstN,
    Math.round(first.time),
    rows.length,
    (wide ? FLAG.wideClass : 0) | (withBoxes ? FLAG.boxes : 0),
    Uint8Array.from(signalNames, (name) => SIGNALS[name].id),
    deflateSync(columns.finish(), { level: 9, mem: 4 }),
  ]);
}

/** @throws FieldloopError `cbor_*`, `message_schema`, `message_too_large` or `batch_malformed`; allocates at most the limits */
export function decodePredictions(bytes: Uint8Array): PredictionColumns {
  if (bytes.length > LIMITS.predictionsBytesMax) {
    throw new FieldloopError(
      "message_too_large",
      `Decode predictions: ${bytes.length} bytes, at most ${LIMITS.predictionsBytesMax}`,
    );
  }
  const parsed = wireSchema.safeParse(decodeCbor(bytes));
  if (!parsed.success) {
    throw new FieldloopError(
      "message_schema",
      `Decode predictions: ${z.prettifyError(parsed.error).slice(0, 300)}`,
    );
  }
  const [boot, seq, prev, model, version, prefix, firstN, firstTime, count, flags, signalIds, payload] =
    parsed.data;
  const signalNames = Array.from(signalIds, (id) => signalNameById(id) ?? malformed(`unknown signal ${id}`));
  const wide = (flags & FLAG.wideClass) !== 0;
  const rowBytes = 4 + (wide ? 2 : 1) + signalNames.length;
  const boxesBytesMax = (flags & FLAG.boxes) !== 0 ? 2 * count + LIMITS.batchBoxesMax * (wide ? 11 : 10) : 0;
  const columns = new ColumnReader(inflateBounded(payload, count * rowBytes + boxesBytesMax), count);
  const time = integrate(columns.u16(), firstTime);
  const result: PredictionColumns = {
    boot,
    seq,
    prev,
    versionRef: { model, version, packagePrefix: bytesToHex(prefix) },
    firstN,
    count,
    signalNames,
    time,
    class: columns.classes(wide),
    confidence: columns.u8(),
    latency: columns.u8(),
    signals: signalNames.map(() => columns.u8()),
    boxes: (flags & FLAG.boxes) !== 0 ? readBoxes(columns, count, wide) : undefined,
  };
  columns.end();
  return result;
}

/** One row of decoded columns as numbers in their units. */
export function predictionRow(
  columns: PredictionColumns,
  index: number,
): PredictionRow & { readonly n: number } {
  const boxes = columns.boxes?.[index];
  return {
    n: columns.firstN + index,
    time: columns.time[index]!,
    class: columns.class[index]!,
    confidence: dequantize(columns.confidence[index]!, CONFIDENCE_SCALE),
    latencyMs: dequantize(columns.latency[index]!, LATENCY_SCALE),
    signals: columns.signalNames.map((name, at) =>
      dequantize(columns.signals[at]![index]!, SIGNALS[name].scale),
    ),
    ...(boxes ? { boxes } : {}),
  };
}

function timeDeltas(rows: readonly PredictionRow[]): number[] {
  let previous = Math.round(rows[0]!.time);
  return rows.map((row) => {
    const time = Math.round(row.time);
    const delta = time - previous;
    if (delta < 0 || delta > LIMITS.batchGapMsMax)
      malformed(`${delta} ms between two rows, wanted 0 to ${LIMITS.batchGapMsMax}`);
    previous = time;
    return delta;
  });
}

function integrate(deltas: Uint16Array, first: number): Float64Array {
  const time = new Float64Array(deltas.length);
  let at = first;
  for (let index = 0; index < deltas.length; index++) {
    at += deltas[index]!;
    time[index] = at;
  }
  return time;
}

function writeBoxes(columns: ColumnWriter, rows: readonly PredictionRow[], wide: boolean): void {
  const boxes = rows.flatMap((row) => row.boxes ?? []);
  if (boxes.length > LIMITS.batchBoxesMax)
    malformed(`${boxes.length} boxes, at most ${LIMITS.batchBoxesMax}`);
  const counts = rows.map((row) => row.boxes?.length ?? 0);
  if (counts.some((count) => count > LIMITS.detectionsMax))
    malformed(`more than ${LIMITS.detectionsMax} boxes in a row`);
  columns.u16(counts);
  for (const edge of ["x0", "y0", "x1", "y1"] as const) {
    columns.u16(boxes.map((box) => Math.round(Math.min(Math.max(box[edge], 0), 1) * 65_535)));
  }
  columns.classes(
    boxes.map((box) => box.class),
    wide,
  );
  columns.u8(boxes.map((box) => quantize(box.score, CONFIDENCE_SCALE)));
}

function readBoxes(columns: ColumnReader, count: number, wide: boolean): Box[][] {
  const counts = columns.u16();
  let total = 0;
  for (const boxes of counts) total += boxes;
  if (total > LIMITS.batchBoxesMax) malformed(`${total} boxes, at most ${LIMITS.batchBoxesMax}`);
  const edges = [columns.u16(total), columns.u16(total), columns.u16(total), columns.u16(total)] as const;
  const classes = columns.classes(wide, total);
  const scores = columns.u8(total);
  const rows: Box[][] = [];
  let at = 0;
  for (let row = 0; row < count; row++) {
    const boxes: Box[] = [];
    for (let index = 0; index < counts[row]!; index++, at++) {
      const [x0, y0, x1, y1] = edges.map((edge) => edge[at]! / 65_535) as [number, number, number, number];
      boxes.push({ x0, y0, x1, y1, class: classes[at]!, score: dequantize(scores[at]!, CONFIDENCE_SCALE) });
    }
    rows.push(boxes);
  }
  return rows;
}

class ColumnWriter {
  readonly #parts: Uint8Array[] = [];

  u8(values: readonly number[]): void {
    this.#parts.push(Uint8Array.from(values));
  }

  /** Low bytes, then high bytes: planes compress better than pairs. */
  u16(values: readonly number[]): void {
    this.#parts.push(
      Uint8Array.from(values, (value) => value & 0xff),
      Uint8Array.from(values, (value) => value >> 8),
    );
  }

  /** Classes shifted by one, so that 0 says "none". */
  classes(values: readonly number[], wide: boolean): void {
    const codes = values.map((value) => value + 1);
    if (codes.some((code) => !Number.isInteger(code) || code < 0 || code > 65_535))
      malformed("a class outside -1..65534");
    if (wide) this.u16(codes);
    else this.u8(codes);
  }

  finish(): Uint8Array {
    const bytes = new Uint8Array(this.#parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }
}

class ColumnReader {
  #at = 0;
  readonly #bytes: Uint8Array;
  readonly #count: number;

  constructor(bytes: Uint8Array, count: number) {
    this.#bytes = bytes;
    this.#count = count;
  }

  u8(count = this.#count): Uint8Array {
    const end = this.#at + count;
    if (end > this.#bytes.length) malformed(`columns end after ${this.#bytes.length} bytes`);
    const column = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return column;
  }

  u16(count = this.#count): Uint16Array {
    const low = this.u8(count);
    const high = this.u8(count);
    return Uint16Array.from({ length: count }, (_, index) => low[index]! | (high[index]! << 8));
  }

  classes(wide: boolean, count = this.#count): Int32Array {
    return Int32Array.from(wide ? this.u16(count) : this.u8(count), (code) => code - 1);
  }

  end(): void {
    if (this.#at !== this.#bytes.length)
      malformed(`${this.#bytes.length - this.#at} bytes after the last column`);
  }
}

/**
 * Inflates into a buffer one byte larger than allowed: the library drops what does not fit, so a full buffer is a bomb. DEFLATE stores
 * incompressible bytes with 5 bytes a 64 KiB block (RFC 1951 section 3.2.4), hence a payload longer than its columns is refused unread,
 * and the work is bounded by the columns too.
 */
function inflateBounded(payload: Uint8Array, bytesMax: number): Uint8Array {
  if (payload.length > bytesMax + 64)
    malformed(`${payload.length} bytes of payload for ${bytesMax} bytes of columns`);
  let columns: Uint8Array;
  try {
    columns = inflateSync(payload, { out: new Uint8Array(bytesMax + 1) });
  } catch (cause) {
    throw new FieldloopError("batch_malformed", "Decode predictions: the columns do not inflate", { cause });
  }
  if (columns.length > bytesMax) malformed(`columns longer than ${bytesMax} bytes`);
  return columns;
}

function hexToBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{16}$/.test(text)) malformed(`package prefix "${text}" is not 16 hexadecimal digits`);
  return Uint8Array.from({ length: 8 }, (_, index) =>
    Number.parseInt(text.slice(index * 2, index * 2 + 2), 16),
  );
}

function bytesToHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function malformed(what: string): never {
  throw new FieldloopError("batch_malformed", `Prediction batch: ${what}`);
}
