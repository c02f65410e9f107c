import { CONFIDENCE_SCALE, LATENCY_SCALE, dequantize, type PredictionColumns } from "@fieldloop/protocol";
import type { Database } from "../store/database.js";
import { BUCKET_MS, type RollupRow, type TelemetryStore } from "../store/telemetry.js";

const CONFIDENCE = Float64Array.from({ length: 256 }, (_, code) => dequantize(code, CONFIDENCE_SCALE));
const LATENCY = Float64Array.from({ length: 256 }, (_, code) => dequantize(code, LATENCY_SCALE));

const NOTHING = { confidenceSum: 0, latencySum: 0, confidenceSquares: 0, latencySquares: 0 };

type Mutable<Row> = { -readonly [Key in keyof Row]: Row[Key] };

/** Adds up the predictions of one unit of work, so that each bucket is written once. */
export class Rollups {
  readonly #rows = new Map<string, Mutable<RollupRow>>();
  readonly #totals = new Map<
    string,
    { device: string; model: string; version: number; count: number; t0: number; t1: number }
  >();

  add(device: string, columns: PredictionColumns): void {
    const { model, version } = columns.versionRef;
    let bucket = Number.NaN;
    // Rows of the bucket at hand by class: a key is made once per class and bucket, not once per prediction.
    const byClass = new Map<number, Mutable<RollupRow>>();
    for (let index = 0; index < columns.count; index++) {
      const now = bucketOf(columns.time[index]!);
      if (now !== bucket) {
        bucket = now;
        byClass.clear();
      }
      const classIndex = columns.class[index]!;
      let row = byClass.get(classIndex);
      if (!row) byClass.set(classIndex, (row = this.#row(device, bucket, model, version, classIndex)));
      row.count++;
      const confidence = CONFIDENCE[columns.confidence[index]!]!;
      const latency = LATENCY[columns.latency[index]!]!;
      row.confidenceSum += confidence;
      row.latencySum += latency;
      row.confidenceSquares += confidence * confidence;
      row.latencySquares += latency * latency;
    }
    this.#addTotal(device, columns);
  }

  async flush(tx: Database, store: TelemetryStore): Promise<void> {
    for (const row of this.#rows.values()) await store.addRollup(tx, row);
    for (const total of this.#totals.values()) await store.addTotal(tx, total);
  }

  #row(
    device: string,
    bucket: number,
    model: string,
    version: number,
    classIndex: number,
  ): Mutable<RollupRow> {
    const key = `${device} ${bucket} ${model} ${version} ${classIndex}`;
    let row = this.#rows.get(key);
    if (!row) {
      row = { device, bucket, model, version, class: classIndex, count: 0, ...NOTHING };
      this.#rows.set(key, row);
    }
    return row;
  }

  #addTotal(device: string, columns: PredictionColumns): void {
    const { model, version } = columns.versionRef;
    const t0 = columns.time[0]!;
    const t1 = columns.time[columns.count - 1]!;
    const key = `${device} ${model} ${version}`;
    const total = this.#totals.get(key);
    if (total) {
      total.count += columns.count;
      total.t1 = Math.max(total.t1, t1);
    } else this.#totals.set(key, { device, model, version, count: columns.count, t0, t1 });
  }
}

/** Start of the bucket that a time falls into. */
export function bucketOf(time: number): number {
  return Math.floor(time / BUCKET_MS) * BUCKET_MS;
}
