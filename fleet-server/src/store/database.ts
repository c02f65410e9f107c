import type { SQL } from "drizzle-orm";

/**
 * What every store file speaks: SQL that SQLite and PostgreSQL both understand, written with drizzle's `sql` tag (which binds
 * every value), so that one implementation of each store serves both databases and one contract suite holds them equal.
 *
 * Portable subset: `insert … on conflict … do update/nothing`, `returning`, CTEs, window functions, `integer`/`bigint` for numbers,
 * `text` (JSON too), and the type tokens of {@link columnTypes}. Booleans are 0/1, times are milliseconds in a bigint.
 */
export interface Database {
  readonly dialect: Dialect;
  all<Row>(query: SQL): Promise<Row[]>;
  /** First row or undefined. */
  get<Row>(query: SQL): Promise<Row | undefined>;
  /** @returns the number of rows changed */
  run(query: SQL): Promise<number>;
  /**
   * One unit of work: all of it is durable when the promise resolves, none of it when it rejects. Serialized on SQLite
   * (`BEGIN IMMEDIATE` on the one writing connection), a pooled client on PostgreSQL. Use only `tx` inside.
   */
  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result>;
  close(): Promise<void>;
}

export type Dialect = "sqlite" | "postgres";

/** Column types that the two dialects spell differently. */
export function columnTypes(dialect: Dialect): {
  readonly blob: string;
  readonly bigint: string;
  readonly real: string;
} {
  return dialect === "sqlite"
    ? { blob: "blob", bigint: "integer", real: "real" }
    : { blob: "bytea", bigint: "bigint", real: "double precision" };
}

/** Statements that bring a database from one schema version to the next; applied in order, each in one transaction. */
export interface Migration {
  readonly name: string;
  statements(types: ReturnType<typeof columnTypes>): readonly string[];
}
