import type { ErrorCode, TrainingRun, TrainingSettings } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { Database, Migration } from "./database.js";
import { newestFirst, type Behind } from "./newest.js";

const NEWEST = newestFirst("created", "run");

export const TRAINING_MIGRATION: Migration = {
  name: "loop_0007_training",
  statements: (types) => [
    `create table training_runs (run text primary key, model text not null, base_version integer not null, snapshot text not null,
      settings text not null, state text not null, created ${types.bigint} not null, created_by text not null,
      started ${types.bigint}, finished ${types.bigint}, progress text not null, candidate integer, error_code text, error_message text)`,
    "create index training_runs_state on training_runs (state)",
    "create index training_runs_created on training_runs (created)",
  ],
};

type Row = Omit<TrainingRun, "settings" | "progress"> & { settings: string; progress: string };

const columns =
  sql.raw(`run, model, base_version as "baseVersion", snapshot, settings, state, created, started, finished,
  progress, candidate, error_code as "errorCode", error_message as "errorMessage"`);

export class TrainingStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(run: TrainingRun, createdBy: string): Promise<void> {
    await this.#database.run(sql`insert into training_runs (run, model, base_version, snapshot, settings, state, created, created_by,
        started, finished, progress, candidate, error_code, error_message)
      values (${run.run}, ${run.model}, ${run.baseVersion}, ${run.snapshot}, ${JSON.stringify(run.settings)}, ${run.state},
        ${run.created}, ${createdBy}, ${run.started}, ${run.finished}, ${JSON.stringify(run.progress)}, ${run.candidate},
        ${run.errorCode}, ${run.errorMessage})`);
  }

  async get(run: string): Promise<TrainingRun | undefined> {
    return (await this.#load(sql`where run = ${run}`))[0];
  }

  /** Newest first, behind `before`. */
  async list(options: { model?: string; before?: Behind; limit: number }): Promise<TrainingRun[]> {
    const model = options.model === undefined ? sql`` : sql` and model = ${options.model}`;
    const { before, limit } = options;
    return this.#load(sql`where ${NEWEST.behind(before)}${model} order by ${NEWEST.order} limit ${limit}`);
  }

  /** Oldest first. */
  async inState(...states: TrainingRun["state"][]): Promise<TrainingRun[]> {
    const list = sql.join(
      states.map((state) => sql`${state}`),
      sql`, `,
    );
    return this.#load(sql`where state in (${list}) order by created, run`);
  }

  async setProgress(run: string, progress: TrainingRun["progress"]): Promise<void> {
    await this.#database.run(
      sql`update training_runs set progress = ${JSON.stringify(progress)} where run = ${run}`,
    );
  }

  /** Moves a run on; only from a state in `from`, so that a cancel and an end at once cannot both win. */
  async move(
    run: string,
    from: readonly TrainingRun["state"][],
    to: TrainingRun["state"],
    change: {
      started?: number;
      finished?: number;
      candidate?: number;
      errorCode?: ErrorCode;
      errorMessage?: string;
    } = {},
  ): Promise<boolean> {
    const sets: SQL[] = [sql`state = ${to}`];
    if (change.started !== undefined) sets.push(sql`started = ${change.started}`);
    if (change.finished !== undefined) sets.push(sql`finished = ${change.finished}`);
    if (change.candidate !== undefined) sets.push(sql`candidate = ${change.candidate}`);
    if (change.errorCode !== undefined) sets.push(sql`error_code = ${change.errorCode}`);
    if (change.errorMessage !== undefined) sets.push(sql`error_message = ${change.errorMessage}`);
    const states = sql.join(
      from.map((state) => sql`${state}`),
      sql`, `,
    );
    const moved = await this.#database.run(
      sql`update training_runs set ${sql.join(sets, sql`, `)} where run = ${run} and state in (${states})`,
    );
    return moved === 1;
  }

  async #load(where: SQL): Promise<TrainingRun[]> {
    const rows = await this.#database.all<Row>(sql`select ${columns} from training_runs ${where}`);
    return rows.map((row) => ({
      ...row,
      settings: JSON.parse(row.settings) as TrainingSettings,
      progress: JSON.parse(row.progress) as TrainingRun["progress"],
    }));
  }
}
