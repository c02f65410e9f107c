import { sql } from "drizzle-orm";
import type { DeviceStats } from "../domain/gate-evidence.js";
import { labelOf } from "../services/labels.js";
import type { Database } from "./database.js";
import { BUCKET_MS } from "./telemetry.js";

/** What one device is asked about. Null: whatever it runs. */
export interface StatsQuery {
  readonly device: string;
  readonly version: { readonly model: string; readonly version: number } | null;
  /** Milliseconds; buckets of predictions that begin in [from's bucket, to). */
  readonly from: number;
  readonly to: number;
}

interface Row {
  model: string;
  version: number;
  class: number;
  count: number;
  confidenceSum: number;
  confidenceSquares: number;
  latencySum: number;
  latencySquares: number;
}

/** What versions did on devices, from the rollups that ingest keeps. */
export class DeviceStatsStore {
  readonly #database: Database;
  readonly #labels: (model: string, version: number) => Promise<readonly string[] | undefined>;

  constructor(
    database: Database,
    labels: (model: string, version: number) => Promise<readonly string[] | undefined>,
  ) {
    this.#database = database;
    this.#labels = labels;
  }

  async read({ device, version, from, to }: StatsQuery): Promise<DeviceStats> {
    const first = Math.floor(from / BUCKET_MS) * BUCKET_MS;
    const of = version ? sql` and model = ${version.model} and version = ${version.version}` : sql``;
    const where = sql`device = ${device} and bucket >= ${first} and bucket < ${to}${of}`;
    const rows = await this.#database.all<Row>(sql`select model, version, class, sum(count) as count,
      sum(confidence_sum) as "confidenceSum", sum(confidence_squares) as "confidenceSquares", sum(latency_sum) as "latencySum",
      sum(latency_squares) as "latencySquares" from rollups where ${where} group by model, version, class`);
    const judged = await this.#database.get<{ count: number | null; correct: number | null }>(
      sql`select sum(count) as count, sum(correct) as correct from accuracy where ${where}`,
    );
    const crashed = await this.#database.get<{
      count: number;
    }>(sql`select count(*) as count from device_events
      where device = ${device} and type = 'crash' and received >= ${from} and received < ${to}`);
    const classes: Record<string, number> = {};
    for (const row of rows) {
      const label = labelOf(await this.#labels(row.model, row.version), row.class);
      classes[label] = (classes[label] ?? 0) + row.count;
    }
    const sum = (value: (row: Row) => number): number => rows.reduce((total, row) => total + value(row), 0);
    const predictions = sum(({ count }) => count);
    return {
      predictions,
      seconds: Math.max(0, to - from) / 1000,
      latencyMs: moments(
        predictions,
        sum((row) => row.latencySum),
        sum((row) => row.latencySquares),
      ),
      confidence: moments(
        predictions,
        sum((row) => row.confidenceSum),
        sum((row) => row.confidenceSquares),
      ),
      classes,
      crashes: crashed?.count ?? 0,
      feedback: { successes: judged?.correct ?? 0, count: judged?.count ?? 0 },
    };
  }
}

function moments(count: number, sum: number, squares: number): DeviceStats["latencyMs"] {
  if (count === 0) return { count, mean: 0, m2: 0 };
  return { count, mean: sum / count, m2: Math.max(0, squares - (sum * sum) / count) };
}
