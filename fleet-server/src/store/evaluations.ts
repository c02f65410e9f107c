import type { Evaluation } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";
import { newestFirst, type Behind } from "./newest.js";

const NEWEST = newestFirst("created", "evaluation");

export const EVALUATIONS_MIGRATION: Migration = {
  name: "loop_0004_evaluations",
  statements: (types) => [
    `create table evaluations (evaluation text primary key, model text not null, base integer not null, candidate integer not null,
      run text, created ${types.bigint} not null, verdict text not null, evaluation_json text not null)`,
    "create index evaluations_candidate on evaluations (model, candidate, created)",
  ],
};

/** Evaluations as they were measured; never changed. */
export class EvaluationStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(evaluation: Evaluation): Promise<void> {
    const { evaluation: id, model, base, candidate, run, created, verdict } = evaluation;
    await this.#database.run(sql`insert into evaluations (evaluation, model, base, candidate, run, created, verdict, evaluation_json)
      values (${id}, ${model}, ${base}, ${candidate}, ${run}, ${created}, ${verdict}, ${JSON.stringify(evaluation)})`);
  }

  async get(evaluation: string): Promise<Evaluation | undefined> {
    const row = await this.#database.get<{ json: string }>(
      sql`select evaluation_json as json from evaluations where evaluation = ${evaluation}`,
    );
    return row && (JSON.parse(row.json) as Evaluation);
  }

  /** Newest first, behind `before`. */
  async list(options: {
    model?: string;
    candidate?: number;
    before?: Behind;
    limit: number;
  }): Promise<Evaluation[]> {
    const model = options.model === undefined ? sql`` : sql` and model = ${options.model}`;
    const candidate = options.candidate === undefined ? sql`` : sql` and candidate = ${options.candidate}`;
    const rows = await this.#database.all<{
      json: string;
    }>(sql`select evaluation_json as json from evaluations
      where ${NEWEST.behind(options.before)}${model}${candidate}
      order by ${NEWEST.order} limit ${options.limit}`);
    return rows.map(({ json }) => JSON.parse(json) as Evaluation);
  }

  /** Of the newest evaluation of a version as the candidate. */
  async latestVerdict(model: string, candidate: number): Promise<Evaluation["verdict"] | undefined> {
    const row = await this.#database.get<{
      verdict: Evaluation["verdict"];
    }>(sql`select verdict from evaluations
      where model = ${model} and candidate = ${candidate} order by created desc, evaluation desc limit 1`);
    return row?.verdict;
  }
}
