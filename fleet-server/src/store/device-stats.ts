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

/** Devices named in one statement. */
const DEVICES_PER_QUERY = 250;

interface Row {
  device: string;
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
    return (await this.readMany([device], { version, from, to })).get(device)!;
  }

  /** The same for many devices, a few statements for hundreds of them. */
  async readMany(
    devices: readonly string[],
    { version, from, to }: Omit<StatsQuery, "device">,
  ): Promise<Map<string, DeviceStats>> {
    const found = new Map<string, DeviceStats>();
    const first = Math.floor(from / BUCKET_MS) * BUCKET_MS;
    const of = version ? sql` and model = ${version.model} and version = ${version.version}` : sql``;
    for (let at = 0; at < devices.length; at += DEVICES_PER_QUERY) {
      const part = devices.slice(at, at + DEVICES_PER_QUERY);
      const ids = sql.join(
        part.map((device) => sql`${device}`),
        sql`, `,
      );
      const where = sql`device in (${ids}) and bucket >= ${first} and bucket < ${to}${of}`;
      const rows = grouped(
        await this.#database.all<Row>(sql`select device, model, version, class, sum(count) as count,
        sum(confidence_sum) as "confidenceSum", sum(confidence_squares) as "confidenceSquares", sum(latency_sum) as "latencySum",
        sum(latency_squares) as "latencySquares" from rollups where ${where} group by device, model, version, class`),
      );
      const judged = grouped(
        await this.#database.all<{ device: string; count: number; correct: number }>(
          sql`select device, sum(count) as count, sum(correct) as correct from accuracy where ${where} group by device`,
        ),
      );
      const crashed = grouped(
        await this.#database.all<{ device: string; count: number }>(sql`select device, count(*) as count
        from device_events where device in (${ids}) and type = 'crash' and received >= ${from} and received < ${to} group by device`),
      );
      for (const device of part) {
        const about = { judged: judged.get(device)?.[0], crashes: crashed.get(device)?.[0]?.count ?? 0 };
        found.set(device, await this.#stats(rows.get(device) ?? [], { ...about, from, to }));
      }
      // Between two parts sockets are read and answered.
      await new Promise((resolve) => setImmediate(resolve));
    }
    return found;
  }

  async #stats(
    rows: readonly Row[],
    about: {
      judged: { count: number; correct: number } | undefined;
      crashes: number;
      from: number;
      to: number;
    },
  ): Promise<DeviceStats> {
    const classes: Record<string, number> = {};
    for (const row of rows) {
      const label = labelOf(await this.#labels(row.model, row.version), row.class);
      classes[label] = (classes[label] ?? 0) + row.count;
    }
    const sum = (value: (row: Row) => number): number => rows.reduce((total, row) => total + value(row), 0);
    const predictions = sum(({ count }) => count);
    return {
      predictions,
      seconds: Math.max(0, about.to - about.from) / 1000,
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
      crashes: about.crashes,
      feedback: { successes: about.judged?.correct ?? 0, count: about.judged?.count ?? 0 },
    };
  }
}

function grouped<Item extends { device: string }>(rows: readonly Item[]): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const row of rows) {
    const group = groups.get(row.device);
    if (group) group.push(row);
    else groups.set(row.device, [row]);
  }
  return groups;
}

function moments(count: number, sum: number, squares: number): DeviceStats["latencyMs"] {
  if (count === 0) return { count, mean: 0, m2: 0 };
  return { count, mean: sum / count, m2: Math.max(0, squares - (sum * sum) / count) };
}
