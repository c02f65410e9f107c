import type { Dataset, Snapshot } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { SnapshotItem } from "../domain/split.js";
import type { Database, Migration } from "./database.js";

export const DATASETS_MIGRATION: Migration = {
  name: "loop_0006_datasets",
  statements: (types) => [
    `create table datasets (dataset text primary key, name text not null, model text not null, query text not null,
      created ${types.bigint} not null, created_by text not null)`,
    `create table snapshots (snapshot text primary key, dataset text not null, model text not null, created ${types.bigint} not null,
      created_by text not null, sample_count integer not null, labels text not null)`,
    "create index snapshots_dataset on snapshots (dataset, created)",
    `create table snapshot_items (snapshot text not null, position integer not null, sample text not null, sha256 text not null,
      label text not null, primary key (snapshot, position))`,
    "create index snapshot_items_sample on snapshot_items (sample)",
  ],
};

export type StoredDataset = Omit<Dataset, "sampleCount">;
export type StoredSnapshot = Snapshot & { readonly model: string };

const ITEMS_PER_STATEMENT = 200;
const datasetColumns = sql.raw("dataset, name, model, query, created");
const snapshotColumns = sql.raw(`snapshot, dataset, model, created, sample_count as "sampleCount", labels`);

type DatasetRow = Omit<StoredDataset, "query"> & { query: string };
type SnapshotRow = Omit<StoredSnapshot, "labels"> & { labels: string };

/** Datasets (living queries) and their snapshots, which never change. */
export class DatasetStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(dataset: StoredDataset, createdBy: string): Promise<void> {
    const { dataset: id, name, model, query, created } = dataset;
    await this.#database.run(sql`insert into datasets (dataset, name, model, query, created, created_by)
      values (${id}, ${name}, ${model}, ${JSON.stringify(query)}, ${created}, ${createdBy})`);
  }

  async get(dataset: string): Promise<StoredDataset | undefined> {
    const row = await this.#database.get<DatasetRow>(
      sql`select ${datasetColumns} from datasets where dataset = ${dataset}`,
    );
    return row && fromDatasetRow(row);
  }

  /** Newest first. */
  async list(limit: number): Promise<StoredDataset[]> {
    const rows = await this.#database.all<DatasetRow>(
      sql`select ${datasetColumns} from datasets order by created desc, dataset desc limit ${limit}`,
    );
    return rows.map(fromDatasetRow);
  }

  /** @returns the stored one: the same content was perhaps frozen before */
  async addSnapshot(
    snapshot: StoredSnapshot,
    items: readonly SnapshotItem[],
    createdBy: string,
  ): Promise<StoredSnapshot> {
    return this.#database.transaction(async (tx) => {
      const inserted =
        await tx.run(sql`insert into snapshots (snapshot, dataset, model, created, created_by, sample_count, labels)
        values (${snapshot.snapshot}, ${snapshot.dataset}, ${snapshot.model}, ${snapshot.created}, ${createdBy},
          ${snapshot.sampleCount}, ${JSON.stringify(snapshot.labels)}) on conflict do nothing`);
      if (inserted === 1) await insertItems(tx, snapshot.snapshot, items);
      const row = await tx.get<SnapshotRow>(
        sql`select ${snapshotColumns} from snapshots where snapshot = ${snapshot.snapshot}`,
      );
      return fromSnapshotRow(row!);
    });
  }

  async getSnapshot(snapshot: string): Promise<StoredSnapshot | undefined> {
    const row = await this.#database.get<SnapshotRow>(
      sql`select ${snapshotColumns} from snapshots where snapshot = ${snapshot}`,
    );
    return row && fromSnapshotRow(row);
  }

  /** Newest first. */
  async snapshots(dataset: string, limit: number): Promise<StoredSnapshot[]> {
    const rows = await this.#database.all<SnapshotRow>(sql`select ${snapshotColumns} from snapshots
      where dataset = ${dataset} order by created desc, snapshot desc limit ${limit}`);
    return rows.map(fromSnapshotRow);
  }

  /** In the order in which the snapshot was hashed, from `position` on. */
  async items(snapshot: string, position: number, limit: number): Promise<SnapshotItem[]> {
    return this.#database.all<SnapshotItem>(sql`select sample, sha256, label from snapshot_items
      where snapshot = ${snapshot} and position >= ${position} order by position limit ${limit}`);
  }

  /** Snapshots that hold a sample: what was trained on it. */
  async snapshotsOf(sample: string): Promise<string[]> {
    const rows = await this.#database.all<{ snapshot: string }>(
      sql`select snapshot from snapshot_items where sample = ${sample} order by snapshot`,
    );
    return rows.map(({ snapshot }) => snapshot);
  }
}

async function insertItems(tx: Database, snapshot: string, items: readonly SnapshotItem[]): Promise<void> {
  for (let at = 0; at < items.length; at += ITEMS_PER_STATEMENT) {
    const rows = items
      .slice(at, at + ITEMS_PER_STATEMENT)
      .map(
        ({ sample, sha256, label }, index) =>
          sql`(${snapshot}, ${at + index}, ${sample}, ${sha256}, ${label})`,
      );
    await tx.run(
      sql`insert into snapshot_items (snapshot, position, sample, sha256, label) values ${sql.join(rows, sql`, `)}`,
    );
  }
}

function fromDatasetRow(row: DatasetRow): StoredDataset {
  return { ...row, query: JSON.parse(row.query) as StoredDataset["query"] };
}

function fromSnapshotRow(row: SnapshotRow): StoredSnapshot {
  return { ...row, labels: JSON.parse(row.labels) as Snapshot["labels"] };
}
