import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const DELTAS_MIGRATION: Migration = {
  name: "delta_0001_deltas",
  statements: (types) => [
    `create table deltas (base_sha256 text not null, target_sha256 text not null, delta_sha256 text, bytes ${types.bigint} not null,
      reason text, made ${types.bigint} not null, used ${types.bigint} not null, primary key (base_sha256, target_sha256))`,
    "create index deltas_used on deltas (used)",
  ],
};

/** What is known of one pair of files. */
export interface StoredDelta {
  readonly base: string;
  readonly target: string;
  /** The blob; null where there is none, with the reason. */
  readonly sha256: string | null;
  readonly bytes: number;
  /** `large`: it saves too little. Anything else failed and may be tried again later. */
  readonly reason: string | null;
  readonly made: number;
  readonly used: number;
}

const columns = sql.raw(
  `base_sha256 as base, target_sha256 as target, delta_sha256 as sha256, bytes, reason, made, used`,
);

export class DeltaStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(base: string, target: string): Promise<StoredDelta | undefined> {
    return this.#database.get<StoredDelta>(
      sql`select ${columns} from deltas where base_sha256 = ${base} and target_sha256 = ${target}`,
    );
  }

  async put(delta: StoredDelta): Promise<void> {
    await this.#database.run(sql`insert into deltas (base_sha256, target_sha256, delta_sha256, bytes, reason, made, used)
      values (${delta.base}, ${delta.target}, ${delta.sha256}, ${delta.bytes}, ${delta.reason}, ${delta.made}, ${delta.used})
      on conflict (base_sha256, target_sha256) do update set delta_sha256 = excluded.delta_sha256, bytes = excluded.bytes,
        reason = excluded.reason, made = excluded.made, used = excluded.used`);
  }

  async setUsed(base: string, target: string, used: number): Promise<void> {
    await this.#database.run(
      sql`update deltas set used = ${used} where base_sha256 = ${base} and target_sha256 = ${target}`,
    );
  }

  async totals(): Promise<{ readonly count: number; readonly bytes: number }> {
    const row = await this.#database.get<{ count: number; bytes: number | null }>(
      sql`select count(*) as count, sum(bytes) as bytes from deltas`,
    );
    return { count: Number(row?.count ?? 0), bytes: Number(row?.bytes ?? 0) };
  }

  /** Forgets the pair that was not asked for the longest. @returns what it was */
  async removeOldest(): Promise<StoredDelta | undefined> {
    return this.#database.get<StoredDelta>(sql`delete from deltas where (base_sha256, target_sha256) in
      (select base_sha256, target_sha256 from deltas order by used, made, base_sha256, target_sha256 limit 1) returning ${columns}`);
  }
}
