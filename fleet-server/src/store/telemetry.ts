import { sql, type SQL } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

/** Rollups and accuracies count predictions by time in buckets of this length, milliseconds. */
export const BUCKET_MS = 10_000;
/** Devices named in one statement. */
const DEVICES_PER_QUERY = 500;

export const TELEMETRY_MIGRATION: Migration = {
  name: "0006_telemetry",
  statements: (types) => [
    `create table cursors (device text not null, stream text not null, boot ${types.bigint} not null, seq ${types.bigint} not null,
      primary key (device, stream))`,
    `create table prediction_segments (
      device text not null, boot ${types.bigint} not null, seq ${types.bigint} not null, model text not null, version integer not null,
      package_prefix text not null, first_n ${types.bigint} not null, count integer not null, t0 ${types.bigint} not null,
      t1 ${types.bigint} not null, received ${types.bigint} not null, payload ${types.blob} not null, primary key (device, boot, seq))`,
    "create index prediction_segments_n on prediction_segments (device, boot, first_n)",
    "create index prediction_segments_time on prediction_segments (device, t1)",
    `create table prediction_totals (device text not null, model text not null, version integer not null, count ${types.bigint} not null,
      first_time ${types.bigint} not null, last_time ${types.bigint} not null, primary key (device, model, version))`,
    `create table rollups (
      device text not null, bucket ${types.bigint} not null, model text not null, version integer not null, class integer not null,
      count ${types.bigint} not null, confidence_sum ${types.real} not null, latency_sum ${types.real} not null,
      primary key (device, bucket, model, version, class))`,
    `create table feedback (
      device text not null, boot ${types.bigint} not null, n ${types.bigint} not null, label text, correct integer,
      received ${types.bigint} not null, folded integer not null default 0, primary key (device, boot, n))`,
    "create index feedback_pending on feedback (device, boot, n) where folded = 0",
    `create table accuracy (
      device text not null, bucket ${types.bigint} not null, model text not null, version integer not null,
      count ${types.bigint} not null, correct ${types.bigint} not null, primary key (device, bucket, model, version))`,
    "create index accuracy_bucket on accuracy (bucket)",
    `create table profiles (
      device text not null, boot ${types.bigint} not null, seq ${types.bigint} not null, model text not null, version integer not null,
      time_from ${types.bigint} not null, time_to ${types.bigint} not null, statistics text not null,
      frames_dropped ${types.bigint} not null, frames_failed ${types.bigint} not null, primary key (device, boot, seq))`,
    "create index profiles_version on profiles (model, version, time_to)",
  ],
};

export interface Segment {
  readonly device: string;
  readonly boot: number;
  readonly seq: number;
  readonly model: string;
  readonly version: number;
  readonly packagePrefix: string;
  readonly firstN: number;
  readonly count: number;
  readonly t0: number;
  readonly t1: number;
  readonly received: number;
  /** The message as it came: columns of `decodePredictions`. */
  readonly payload: Uint8Array;
}

export interface RollupRow {
  readonly device: string;
  /** Start of the bucket, milliseconds. */
  readonly bucket: number;
  readonly model: string;
  readonly version: number;
  readonly class: number;
  readonly count: number;
  readonly confidenceSum: number;
  readonly latencySum: number;
  readonly confidenceSquares: number;
  readonly latencySquares: number;
}

export interface AccuracyRow {
  readonly device: string;
  readonly bucket: number;
  readonly model: string;
  readonly version: number;
  readonly count: number;
  readonly correct: number;
}

export interface FeedbackRow {
  readonly device: string;
  readonly boot: number;
  readonly n: number;
  readonly label: string | null;
  /** 0, 1, or null where only a label was said. */
  readonly correct: number | null;
}

/** Which predictions a question is about; what is absent does not narrow it. Times in milliseconds, `to` exclusive. */
export interface TelemetryFilter {
  readonly device?: string;
  readonly devices?: readonly string[];
  readonly model?: string;
  readonly version?: number;
  readonly from?: number;
  readonly to?: number;
}

const SEGMENT: SQL =
  sql.raw(`s.device, s.boot, s.seq, s.model, s.version, s.package_prefix as "packagePrefix",
  s.first_n as "firstN", s.count, s.t0, s.t1, s.received, s.payload`);

/** Predictions as columnar segments, their rollups, feedback and what it says about accuracy. */
export class TelemetryStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async cursors(tx: Database, device: string): Promise<{ stream: string; boot: number; seq: number }[]> {
    return tx.all(sql`select stream, boot, seq from cursors where device = ${device}`);
  }

  async setCursor(tx: Database, device: string, stream: string, boot: number, seq: number): Promise<void> {
    await tx.run(sql`insert into cursors (device, stream, boot, seq) values (${device}, ${stream}, ${boot}, ${seq})
      on conflict (device, stream) do update set boot = excluded.boot, seq = excluded.seq`);
  }

  async insertSegment(tx: Database, segment: Segment): Promise<void> {
    await tx.run(sql`insert into prediction_segments
      (device, boot, seq, model, version, package_prefix, first_n, count, t0, t1, received, payload)
      values (${segment.device}, ${segment.boot}, ${segment.seq}, ${segment.model}, ${segment.version}, ${segment.packagePrefix},
        ${segment.firstN}, ${segment.count}, ${segment.t0}, ${segment.t1}, ${segment.received}, ${segment.payload})`);
  }

  async addRollup(tx: Database, row: RollupRow): Promise<void> {
    await tx.run(sql`insert into rollups (device, bucket, model, version, class, count, confidence_sum, latency_sum,
        confidence_squares, latency_squares)
      values (${row.device}, ${row.bucket}, ${row.model}, ${row.version}, ${row.class}, ${row.count}, ${row.confidenceSum}, ${row.latencySum},
        ${row.confidenceSquares}, ${row.latencySquares})
      on conflict (device, bucket, model, version, class) do update set count = rollups.count + excluded.count,
        confidence_sum = rollups.confidence_sum + excluded.confidence_sum, latency_sum = rollups.latency_sum + excluded.latency_sum,
        confidence_squares = rollups.confidence_squares + excluded.confidence_squares,
        latency_squares = rollups.latency_squares + excluded.latency_squares`);
  }

  async addTotal(
    tx: Database,
    row: { device: string; model: string; version: number; count: number; t0: number; t1: number },
  ): Promise<void> {
    await tx.run(sql`insert into prediction_totals (device, model, version, count, first_time, last_time)
      values (${row.device}, ${row.model}, ${row.version}, ${row.count}, ${row.t0}, ${row.t1})
      on conflict (device, model, version) do update set count = prediction_totals.count + excluded.count,
        last_time = case when excluded.last_time > prediction_totals.last_time then excluded.last_time else prediction_totals.last_time end`);
  }

  /** @returns false where this prediction already has feedback: the first counts */
  async insertFeedback(tx: Database, row: FeedbackRow & { received: number }): Promise<boolean> {
    const inserted = await tx.run(sql`insert into feedback (device, boot, n, label, correct, received)
      values (${row.device}, ${row.boot}, ${row.n}, ${row.label}, ${row.correct}, ${row.received}) on conflict do nothing`);
    return inserted === 1;
  }

  /** Feedback that waits for its predictions, or for the labels of their version. */
  async pendingFeedback(
    tx: Database,
    device: string,
    boot: number,
    fromN: number,
    toN: number,
  ): Promise<FeedbackRow[]> {
    return tx.all(sql`select device, boot, n, label, correct from feedback
      where folded = 0 and device = ${device} and boot = ${boot} and n >= ${fromN} and n < ${toN}`);
  }

  /** Segments of a version that hold predictions with pending feedback. */
  async segmentsWithPending(tx: Database, model: string, version: number, limit: number): Promise<Segment[]> {
    return tx.all(sql`select ${SEGMENT} from prediction_segments s where s.model = ${model} and s.version = ${version}
      and exists (select 1 from feedback f where f.folded = 0 and f.device = s.device and f.boot = s.boot
        and f.n >= s.first_n and f.n < s.first_n + s.count and f.label is not null) limit ${limit}`);
  }

  /** Settles one feedback exactly once. */
  async foldFeedback(
    tx: Database,
    row: FeedbackRow,
    into: Omit<AccuracyRow, "count" | "correct">,
    correct: boolean,
  ): Promise<void> {
    const folded = await tx.run(sql`update feedback set folded = 1, correct = ${correct}
      where device = ${row.device} and boot = ${row.boot} and n = ${row.n} and folded = 0`);
    if (folded !== 1) return;
    await tx.run(sql`insert into accuracy (device, bucket, model, version, count, correct)
      values (${into.device}, ${into.bucket}, ${into.model}, ${into.version}, 1, ${correct})
      on conflict (device, bucket, model, version) do update set count = accuracy.count + 1, correct = accuracy.correct + excluded.correct`);
  }

  /** The segment that holds prediction `n` of a boot. */
  async segmentAt(
    device: string,
    boot: number,
    n: number,
    tx: Database = this.#database,
  ): Promise<Segment | undefined> {
    const segment = await tx.get<Segment>(sql`select ${SEGMENT} from prediction_segments s
      where s.device = ${device} and s.boot = ${boot} and s.first_n <= ${n} order by s.first_n desc limit 1`);
    return segment && n < segment.firstN + segment.count ? segment : undefined;
  }

  /** Newest first, by the time of their last prediction. */
  async recentSegments(device: string, limit: number): Promise<Segment[]> {
    return this.#database.all(sql`select ${SEGMENT} from prediction_segments s where s.device = ${device}
      order by s.t1 desc, s.boot desc, s.seq desc limit ${limit}`);
  }

  async feedbackIn(device: string, boot: number, fromN: number, toN: number): Promise<FeedbackRow[]> {
    return this.#database.all(sql`select device, boot, n, label, correct from feedback
      where device = ${device} and boot = ${boot} and n >= ${fromN} and n < ${toN}`);
  }

  /** Counted predictions with feedback, by device. */
  async accuracyByDevice(
    filter: TelemetryFilter,
  ): Promise<{ device: string; count: number; correct: number }[]> {
    return this.#perDevices(
      filter,
      (where) =>
        sql`select device, sum(count) as count, sum(correct) as correct from accuracy where ${where} group by device`,
    );
  }

  /** Sums over predictions, by device. */
  async sumsByDevice(
    filter: TelemetryFilter,
  ): Promise<{ device: string; count: number; confidenceSum: number; latencySum: number }[]> {
    return this.#perDevices(
      filter,
      (where) =>
        sql`select device, sum(count) as count, sum(confidence_sum) as "confidenceSum", sum(latency_sum) as "latencySum"
        from rollups where ${where} group by device`,
    );
  }

  /** Every prediction that ever arrived, by device. */
  async totalsByDevice(
    filter: Pick<TelemetryFilter, "device" | "devices" | "model" | "version">,
  ): Promise<{ device: string; count: number }[]> {
    return this.#perDevices(
      filter,
      (where) =>
        sql`select device, sum(count) as count from prediction_totals where ${where} group by device`,
    );
  }

  /** Class counts and sums in buckets of `bucketMs` (a multiple of {@link BUCKET_MS}), oldest first. */
  async series(
    filter: TelemetryFilter,
    bucketMs: number,
  ): Promise<Omit<RollupRow, "device" | "confidenceSquares" | "latencySquares">[]> {
    return this.#database.all(sql`select (bucket / ${bucketMs}) * ${bucketMs} as bucket, model, version, class, sum(count) as count,
      sum(confidence_sum) as "confidenceSum", sum(latency_sum) as "latencySum" from rollups where ${condition(filter)}
      group by 1, model, version, class order by 1`);
  }

  async accuracySeries(
    filter: TelemetryFilter,
    bucketMs: number,
  ): Promise<{ bucket: number; count: number; correct: number }[]> {
    return this.#database.all(sql`select (bucket / ${bucketMs}) * ${bucketMs} as bucket, sum(count) as count, sum(correct) as correct
      from accuracy where ${condition(filter)} group by 1 order by 1`);
  }

  async insertProfile(
    tx: Database,
    row: {
      device: string;
      boot: number;
      seq: number;
      model: string;
      version: number;
      from: number;
      to: number;
      statistics: object;
      framesDropped: number;
      framesFailed: number;
    },
  ): Promise<void> {
    await tx.run(sql`insert into profiles
      (device, boot, seq, model, version, time_from, time_to, statistics, frames_dropped, frames_failed)
      values (${row.device}, ${row.boot}, ${row.seq}, ${row.model}, ${row.version}, ${row.from}, ${row.to},
        ${JSON.stringify(row.statistics)}, ${row.framesDropped}, ${row.framesFailed})`);
  }

  /** A long list of devices is asked about in parts. */
  async #perDevices<Row>(filter: TelemetryFilter, query: (where: SQL) => SQL): Promise<Row[]> {
    const { devices } = filter;
    if (!devices) return this.#database.all<Row>(query(condition(filter)));
    const rows: Row[] = [];
    for (let at = 0; at < devices.length; at += DEVICES_PER_QUERY) {
      const part = devices.slice(at, at + DEVICES_PER_QUERY);
      rows.push(...(await this.#database.all<Row>(query(condition({ ...filter, devices: part })))));
    }
    return rows;
  }
}

function condition(filter: TelemetryFilter): SQL {
  const parts: SQL[] = [sql`1 = 1`];
  if (filter.device !== undefined) parts.push(sql`device = ${filter.device}`);
  if (filter.devices !== undefined) {
    const list = filter.devices.map((device) => sql`${device}`);
    parts.push(list.length === 0 ? sql`1 = 0` : sql`device in (${sql.join(list, sql`, `)})`);
  }
  if (filter.model !== undefined) parts.push(sql`model = ${filter.model}`);
  if (filter.version !== undefined) parts.push(sql`version = ${filter.version}`);
  // A bucket belongs to a range when it begins in it; the first one is the bucket that `from` falls into.
  if (filter.from !== undefined)
    parts.push(sql`bucket >= ${Math.floor(filter.from / BUCKET_MS) * BUCKET_MS}`);
  if (filter.to !== undefined) parts.push(sql`bucket < ${filter.to}`);
  return sql.join(parts, sql` and `);
}
