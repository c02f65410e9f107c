import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const DESIRED_MIGRATION: Migration = {
  name: "0005_desired",
  statements: (types) => [
    `create table desired (
      device text primary key, revision ${types.bigint} not null, payload ${types.blob} not null, envelope ${types.blob} not null,
      issued ${types.bigint} not null)`,
    "create table device_policies (scope text primary key, policy text not null)",
  ],
};

export interface StoredDesired {
  readonly device: string;
  readonly revision: number;
  /** The encoded `desired` message that was signed. */
  readonly payload: Uint8Array;
  /** The signed envelope: what travels. */
  readonly envelope: Uint8Array;
  readonly issued: number;
}

/** Desired states and the policies that they are made from. */
export class DesiredStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async get(device: string, tx: Database = this.#database): Promise<StoredDesired | undefined> {
    return tx.get<StoredDesired>(
      sql`select device, revision, payload, envelope, issued from desired where device = ${device}`,
    );
  }

  async list(after: string, limit: number): Promise<StoredDesired[]> {
    return this.#database.all<StoredDesired>(sql`select device, revision, payload, envelope, issued from desired
      where device > ${after} order by device limit ${limit}`);
  }

  /** Only a higher revision replaces one. */
  async put(tx: Database, desired: StoredDesired): Promise<boolean> {
    const changed = await tx.run(sql`insert into desired (device, revision, payload, envelope, issued)
      values (${desired.device}, ${desired.revision}, ${desired.payload}, ${desired.envelope}, ${desired.issued})
      on conflict (device) do update set revision = excluded.revision, payload = excluded.payload,
        envelope = excluded.envelope, issued = excluded.issued where excluded.revision > desired.revision`);
    return changed === 1;
  }

  /** Policies by scope: `default`, `group:…`, `device:…`. */
  async policies(tx: Database = this.#database): Promise<Map<string, unknown>> {
    const rows = await tx.all<{ scope: string; policy: string }>(
      sql`select scope, policy from device_policies`,
    );
    return new Map(rows.map((row) => [row.scope, JSON.parse(row.policy) as unknown]));
  }

  async putPolicy(scope: string, policy: object): Promise<void> {
    await this.#database.run(sql`insert into device_policies (scope, policy) values (${scope}, ${JSON.stringify(policy)})
      on conflict (scope) do update set policy = excluded.policy`);
  }
}
