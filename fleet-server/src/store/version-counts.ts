import { sql } from "drizzle-orm";
import type { VersionCounts } from "../domain/rollout.js";
import type { Database } from "./database.js";
import { BUCKET_MS } from "./telemetry.js";

export interface VersionCountsQuery {
  readonly device: string;
  readonly model: string;
  readonly version: number;
  /** Milliseconds; buckets of predictions that begin in [from's bucket, to]. */
  readonly from: number;
  readonly to: number;
  /** The newest judged predictions that are counted, rounded up to whole buckets. */
  readonly feedbackMax: number;
}

/** What one version did on one device, from the rollups that ingest keeps. */
export class VersionCountsStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async versionCounts(query: VersionCountsQuery): Promise<VersionCounts> {
    const { device, model, version, to, feedbackMax } = query;
    const from = Math.floor(query.from / BUCKET_MS) * BUCKET_MS;
    const where = sql`device = ${device} and model = ${model} and version = ${version} and bucket >= ${from} and bucket <= ${to}`;
    const sums = await this.#database.get<{ count: number | null; latencySum: number | null }>(
      sql`select sum(count) as count, sum(latency_sum) as "latencySum" from rollups where ${where}`,
    );
    const buckets = await this.#database.all<{ count: number; correct: number }>(
      sql`select count, correct from accuracy where ${where} order by bucket desc limit ${feedbackMax}`,
    );
    let count = 0;
    let successes = 0;
    for (const bucket of buckets) {
      if (count >= feedbackMax) break;
      count += bucket.count;
      successes += bucket.correct;
    }
    const predictions = sums?.count ?? 0;
    return {
      predictions,
      meanLatencyMs: predictions === 0 ? null : (sums?.latencySum ?? 0) / predictions,
      feedback: { successes, count },
    };
  }
}
