import type {
  Annotation,
  FailureStatus,
  MediaType,
  SampleQuery,
  SampleView,
  Stratum,
} from "@fieldloop/protocol";
import { DISAGREES_FROM, FieldloopError, formatPredictionId } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const ANNOTATIONS_MIGRATION: Migration = {
  name: "loop_0005_annotations",
  statements: (types) => [
    `create table annotations (annotation text primary key, sample text not null, label text not null, author text not null,
      created ${types.bigint} not null, current integer not null)`,
    "create unique index annotations_current on annotations (sample) where current = 1",
    "create index annotations_sample on annotations (sample, created)",
    "create index samples_time on samples (model, time)",
  ],
};

/** A sample as people see it, but for the address of its payload. */
export type StoredSample = Omit<SampleView, "payloadUrl"> & {
  readonly sha256: string;
  readonly packageSha256: string;
};

export interface StratumCounts {
  readonly stratum: Stratum;
  readonly count: number;
  readonly wrong: number;
  readonly right: number;
}

export interface LabelledSample {
  readonly sample: string;
  readonly sha256: string;
  readonly label: string;
}

export interface LabelledQuery {
  readonly model: string;
  /** True: annotated by a person. False: or labelled by the application's feedback. */
  readonly annotatedOnly: boolean;
  readonly devices?: readonly string[];
  readonly versions?: readonly number[];
  readonly after?: number;
}

interface Row {
  sample: string;
  device: string;
  boot: number;
  n: number;
  time: number;
  received: number;
  model: string;
  version: number;
  packageSha256: string;
  stratum: Stratum;
  probability: number;
  worth: number;
  class: number;
  label: string;
  confidence: number;
  signals: string;
  shadowDeployment: string | null;
  shadowVersion: number | null;
  shadowLabel: string | null;
  shadowConfidence: number | null;
  disagreement: number | null;
  mediaType: MediaType;
  bytes: number;
  sha256: string;
  status: FailureStatus;
  annotation: string | null;
  annotatedLabel: string | null;
  author: string | null;
  annotated: number | null;
  truthLabel: string | null;
  correct: number | null;
}

/** A person's label outweighs the application's feedback; feedback may say only right or wrong. */
const WRONG = `case when a.label is not null then case when a.label <> s.label then 1 else 0 end
  when f.label is not null then case when f.label <> s.label then 1 else 0 end
  when f.correct is not null then 1 - f.correct end`;
const FROM = `from samples s left join annotations a on a.sample = s.sample and a.current = 1
  left join feedback f on f.device = s.device and f.boot = s.prediction_boot and f.n = s.n`;
const columns =
  sql.raw(`s.sample, s.device, s.prediction_boot as boot, s.n, s.time, s.received, s.model, s.version,
  s.package_sha256 as "packageSha256", s.stratum, s.probability, s.worth, s.class, s.label, s.confidence, s.signals,
  s.shadow_deployment as "shadowDeployment", s.shadow_version as "shadowVersion", s.shadow_label as "shadowLabel",
  s.shadow_confidence as "shadowConfidence", s.disagreement,
  s.media_type as "mediaType", s.bytes, s.sha256, s.status, a.annotation, a.label as "annotatedLabel", a.author,
  a.created as annotated, f.label as "truthLabel", f.correct`);
const fromSamples = sql.raw(FROM);
const wrongIs = sql.raw(`(${WRONG})`);

/** Samples as failure cases, and the labels that people gave them. */
export class SampleStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async get(sample: string): Promise<StoredSample | undefined> {
    const row = await this.#database.get<Row>(
      sql`select ${columns} ${fromSamples} where s.sample = ${sample}`,
    );
    return row && fromRow(row);
  }

  /** One page in the query's order; `next` is the cursor of the page after it. */
  async list(query: SampleQuery): Promise<{ samples: StoredSample[]; next: string | null }> {
    const key = query.order === "worth" ? sql`s.worth` : sql`s.time`;
    const conditions = [...conditionsOf(query), ...cursorCondition(key, query.cursor)];
    const rows = await this.#database.all<Row>(sql`select ${columns} ${fromSamples} ${where(conditions)}
      order by ${key} desc, s.sample desc limit ${query.limit + 1}`);
    const samples = rows.slice(0, query.limit).map(fromRow);
    const last = samples.at(-1);
    const more = rows.length > query.limit && last !== undefined;
    return {
      samples,
      next: more ? encodeCursor(query.order === "worth" ? last.worth : last.time, last.sample) : null,
    };
  }

  async count(): Promise<{ total: number; unlabelled: number }> {
    const row = await this.#database.get<{ total: number; labelled: number }>(
      sql`select count(*) as total, (select count(*) from annotations where current = 1) as labelled from samples`,
    );
    return { total: row!.total, unlabelled: row!.total - row!.labelled };
  }

  /** Per stratum: how many samples, and how many are known to be wrong or right. */
  async statistics(
    query: Pick<SampleQuery, "model" | "version" | "device" | "after" | "before">,
  ): Promise<StratumCounts[]> {
    return this.#database.all<StratumCounts>(sql`select stratum, count(*) as count,
      coalesce(sum(case when wrong = 1 then 1 else 0 end), 0) as wrong, coalesce(sum(case when wrong = 0 then 1 else 0 end), 0) as "right"
      from (select s.stratum as stratum, ${wrongIs} as wrong ${fromSamples} ${where(conditionsOf(query))}) as judged
      group by stratum order by stratum`);
  }

  async setStatus(sample: string, status: FailureStatus): Promise<boolean> {
    return (
      (await this.#database.run(sql`update samples set status = ${status} where sample = ${sample}`)) === 1
    );
  }

  /** Moves the samples of a snapshot from one of `from` to `to`. @returns how many */
  async setSnapshotStatus(
    snapshot: string,
    from: readonly FailureStatus[],
    to: FailureStatus,
  ): Promise<number> {
    return this.#database.run(sql`update samples set status = ${to} where status in (${list(from)})
      and sample in (select sample from snapshot_items where snapshot = ${snapshot})`);
  }

  /** Adds a label; the one before it stays and is no longer the current one. Part of its caller's unit of work. */
  async annotate(annotation: Omit<Annotation, "current"> & { readonly sample: string }): Promise<void> {
    const { annotation: id, sample, label, author, created } = annotation;
    await this.#database.run(
      sql`update annotations set current = 0 where sample = ${sample} and current = 1`,
    );
    await this.#database.run(sql`insert into annotations (annotation, sample, label, author, created, current)
      values (${id}, ${sample}, ${label}, ${author}, ${created}, 1)`);
  }

  /** Every label that a sample was given, newest first. */
  async annotations(sample: string): Promise<Annotation[]> {
    const rows = await this.#database.all<Omit<Annotation, "current"> & { current: number }>(
      sql`select annotation, label, author, created, current from annotations where sample = ${sample}
        order by current desc, created desc, annotation desc`,
    );
    return rows.map((row) => ({ ...row, current: row.current === 1 }));
  }

  /** Samples with a known label, by id. */
  async labelled(query: LabelledQuery, limit: number): Promise<LabelledSample[]> {
    const conditions = labelledConditions(query);
    return this.#database.all<LabelledSample>(sql`select s.sample, s.sha256, coalesce(a.label, f.label) as label
      ${fromSamples} ${where(conditions)} order by s.sample limit ${limit}`);
  }

  async countLabelled(query: LabelledQuery): Promise<number> {
    const row = await this.#database.get<{ count: number }>(
      sql`select count(*) as count ${fromSamples} ${where(labelledConditions(query))}`,
    );
    return row!.count;
  }
}

function conditionsOf(query: Partial<SampleQuery>): SQL[] {
  const parts: SQL[] = [];
  if (query.model !== undefined) parts.push(sql`s.model = ${query.model}`);
  if (query.version !== undefined) parts.push(sql`s.version = ${query.version}`);
  if (query.device !== undefined) parts.push(sql`s.device = ${query.device}`);
  if (query.stratum !== undefined) parts.push(sql`s.stratum = ${query.stratum}`);
  if (query.status !== undefined) parts.push(sql`s.status = ${query.status}`);
  if (query.shadow !== undefined) parts.push(...shadowConditions(query.shadow));
  if (query.after !== undefined) parts.push(sql`s.time >= ${query.after}`);
  if (query.before !== undefined) parts.push(sql`s.time < ${query.before}`);
  if (query.labelled === "yes") parts.push(sql`a.annotation is not null`);
  if (query.labelled === "no") parts.push(sql`a.annotation is null`);
  if (query.wrong === "yes") parts.push(sql`${wrongIs} = 1`);
  if (query.wrong === "no") parts.push(sql`${wrongIs} = 0`);
  if (query.wrong === "unknown") parts.push(sql`${wrongIs} is null`);
  return parts;
}

/** `any`: of whichever deployment. */
function shadowConditions(deployment: string): SQL[] {
  const whose =
    deployment === "any" ? sql`s.shadow_deployment is not null` : sql`s.shadow_deployment = ${deployment}`;
  return [whose, sql`s.disagreement >= ${DISAGREES_FROM}`];
}

function labelledConditions(query: LabelledQuery): SQL[] {
  const parts = [sql`s.model = ${query.model}`];
  parts.push(query.annotatedOnly ? sql`a.label is not null` : sql`coalesce(a.label, f.label) is not null`);
  if (query.devices)
    parts.push(query.devices.length === 0 ? sql`1 = 0` : sql`s.device in (${list(query.devices)})`);
  if (query.versions)
    parts.push(query.versions.length === 0 ? sql`1 = 0` : sql`s.version in (${list(query.versions)})`);
  if (query.after !== undefined) parts.push(sql`s.time >= ${query.after}`);
  return parts;
}

function where(conditions: readonly SQL[]): SQL {
  return conditions.length === 0 ? sql`` : sql`where ${sql.join([...conditions], sql` and `)}`;
}

function list(values: readonly (string | number)[]): SQL {
  return sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  );
}

function encodeCursor(key: number, sample: string): string {
  return Buffer.from(JSON.stringify([key, sample])).toString("base64url");
}

function cursorCondition(key: SQL, cursor: string | undefined): SQL[] {
  if (cursor === undefined) return [];
  const parsed = parseCursor(cursor);
  if (!parsed)
    throw new FieldloopError(
      "invalid_argument",
      `List samples: "${cursor.slice(0, 40)}" is not a cursor of this list`,
    );
  const [value, sample] = parsed;
  return [sql`(${key} < ${value} or (${key} = ${value} and s.sample < ${sample}))`];
}

function parseCursor(cursor: string): [number, string] | undefined {
  try {
    const value = JSON.parse(Buffer.from(cursor, "base64url").toString()) as unknown;
    if (!Array.isArray(value) || value.length !== 2) return undefined;
    const [key, sample] = value as unknown[];
    return typeof key === "number" && typeof sample === "string" ? [key, sample] : undefined;
  } catch {
    // Not JSON: no cursor of ours.
    return undefined;
  }
}

function fromRow(row: Row): StoredSample {
  const { boot, n, signals, annotation, annotatedLabel, author, annotated, truthLabel, correct, ...others } =
    row;
  const { shadowDeployment, shadowVersion, shadowLabel, shadowConfidence, disagreement, ...rest } = others;
  const truth = truthLabel ?? (correct === 1 ? row.label : null);
  return {
    ...rest,
    predictionId: formatPredictionId(boot, n),
    signals: JSON.parse(signals) as Record<string, number>,
    shadow:
      shadowDeployment === null
        ? null
        : {
            deployment: shadowDeployment,
            version: shadowVersion!,
            label: shadowLabel!,
            confidence: shadowConfidence!,
            disagreement: disagreement ?? 0,
          },
    annotation:
      annotation === null
        ? null
        : { annotation, label: annotatedLabel!, author: author!, created: annotated!, current: true },
    truth,
    wrong: wrongOf(row),
  };
}

function wrongOf({ label, annotatedLabel, truthLabel, correct }: Row): SampleView["wrong"] {
  const said = annotatedLabel ?? truthLabel;
  if (said !== null) return said === label ? "no" : "yes";
  if (correct === null) return "unknown";
  return correct === 1 ? "no" : "yes";
}
