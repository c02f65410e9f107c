import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const LABELS_MIGRATION: Migration = {
  name: "0002_model_labels",
  statements: () => [
    "create table model_labels (model text not null, version integer not null, labels text not null, primary key (model, version))",
  ],
};

/** What the class numbers of each version mean. */
export class LabelStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async put(model: string, version: number, labels: readonly string[]): Promise<void> {
    const json = JSON.stringify(labels);
    await this.#database.run(sql`insert into model_labels (model, version, labels) values (${model}, ${version}, ${json})
      on conflict (model, version) do update set labels = excluded.labels`);
  }

  async get(model: string, version: number, tx: Database = this.#database): Promise<string[] | undefined> {
    const row = await tx.get<{ labels: string }>(
      sql`select labels from model_labels where model = ${model} and version = ${version}`,
    );
    return row && (JSON.parse(row.labels) as string[]);
  }
}
