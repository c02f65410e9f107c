import { AsyncLocalStorage } from "node:async_hooks";
import { FieldloopError } from "@fieldloop/protocol";
import Sqlite from "better-sqlite3";
import type { SQL } from "drizzle-orm";
import { SQLiteSyncDialect } from "drizzle-orm/sqlite-core";
import type { Database } from "./database.js";
import { Mutex } from "./mutex.js";

/** Prepared statements kept per connection; the SQL texts of this server are far fewer. */
const STATEMENTS_MAX = 500;
const BUSY_TIMEOUT_MS = 5_000;
/** 64 MB of pages before a checkpoint: group commits are not interrupted by one every few hundred messages. */
const CHECKPOINT_PAGES = 16_000;
const SYNCHRONOUS_FULL = 2;

/**
 * SQLite in a file: one writing connection whose units of work are serialized, and one read-only connection that sees the last
 * commit while a unit of work is open.
 * @throws FieldloopError `storage_failed` where the file cannot be opened or its commits would not be durable
 */
export function openSqlite(path: string): Database {
  const writer = openConnection(path, false);
  makeDurable(writer, path);
  const reader = openConnection(path, true);
  return new SqliteDatabase(new Connection(writer), new Connection(reader));
}

function openConnection(path: string, readonly: boolean): Sqlite.Database {
  try {
    const connection = new Sqlite(path, { readonly, timeout: BUSY_TIMEOUT_MS });
    connection.pragma("foreign_keys = ON");
    // SQLite reads the file at the first question, not when it opens it.
    connection.pragma("schema_version");
    return connection;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("storage_failed", `Open database: "${path}" cannot be opened: ${reason}`, {
      cause,
    });
  }
}

/**
 * Write-ahead logging with a sync at every commit. In WAL mode SQLite as better-sqlite3 compiles it falls back to
 * `synchronous=NORMAL` at the first write, and commits are lost in a power cut; so FULL is set after WAL and read again after a write.
 */
function makeDurable(writer: Sqlite.Database, path: string): void {
  const mode = writer.pragma("journal_mode = WAL", { simple: true });
  writer.pragma("synchronous = FULL");
  writer.pragma(`wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  writer.exec("create table if not exists durability_probe (id integer primary key, opened integer)");
  writer.exec(
    "insert into durability_probe values (1, 1) on conflict (id) do update set opened = opened + 1",
  );
  const synchronous = writer.pragma("synchronous", { simple: true });
  if (mode !== "wal" || synchronous !== SYNCHRONOUS_FULL) {
    writer.close();
    throw new FieldloopError(
      "storage_failed",
      `Open database: "${path}" has journal mode "${String(mode)}" and synchronous ${String(synchronous)}, wanted wal and ${SYNCHRONOUS_FULL}`,
    );
  }
}

/** One better-sqlite3 connection with its prepared statements by SQL text. */
class Connection {
  readonly raw: Sqlite.Database;
  readonly #dialect = new SQLiteSyncDialect();
  readonly #statements = new Map<string, Sqlite.Statement>();

  constructor(raw: Sqlite.Database) {
    this.raw = raw;
  }

  render(query: SQL): { text: string; values: unknown[] } {
    const { sql, params } = this.#dialect.sqlToQuery(query);
    return { text: sql, values: params.map(bindable) };
  }

  prepare(text: string): Sqlite.Statement {
    const known = this.#statements.get(text);
    if (known) return known;
    const statement = this.raw.prepare(text);
    if (this.#statements.size >= STATEMENTS_MAX)
      this.#statements.delete(this.#statements.keys().next().value!);
    this.#statements.set(text, statement);
    return statement;
  }
}

/** Whole numbers bind as integers (better-sqlite3 binds every number as a real, and `7.0 / 2` is not `7 / 2`), booleans as 0 and 1. */
function bindable(value: unknown): unknown {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
  return value;
}

/** Statements on one connection, with errors made portable. */
abstract class SqliteQueries {
  readonly dialect = "sqlite";

  protected all_<Row>(connection: Connection, query: SQL): Row[] {
    const { text, values } = connection.render(query);
    return coded(() => {
      const statement = connection.prepare(text);
      if (statement.reader) return statement.all(...values) as Row[];
      statement.run(...values);
      return [];
    });
  }

  protected run_(connection: Connection, query: SQL): number {
    const { text, values } = connection.render(query);
    return coded(() => {
      const statement = connection.prepare(text);
      return statement.reader ? statement.all(...values).length : statement.run(...values).changes;
    });
  }
}

class SqliteDatabase extends SqliteQueries implements Database {
  readonly #writer: Connection;
  readonly #reader: Connection;
  readonly #mutex = new Mutex();
  readonly #inside = new AsyncLocalStorage<SqliteTransaction>();

  constructor(writer: Connection, reader: Connection) {
    super();
    this.#writer = writer;
    this.#reader = reader;
  }

  async all<Row>(query: SQL): Promise<Row[]> {
    this.#refuseInside();
    if (this.#isRead(query)) return this.all_<Row>(this.#reader, query);
    return this.#mutex.run(async () => this.all_<Row>(this.#writer, query));
  }

  async get<Row>(query: SQL): Promise<Row | undefined> {
    return (await this.all<Row>(query))[0];
  }

  async run(query: SQL): Promise<number> {
    this.#refuseInside();
    return this.#mutex.run(async () => this.run_(this.#writer, query));
  }

  async transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    this.#refuseInside();
    return this.#mutex.run(async () => {
      const tx = new SqliteTransaction(this.#writer);
      coded(() => this.#writer.raw.exec("begin immediate"));
      try {
        const result = await this.#inside.run(tx, () => work(tx));
        coded(() => this.#writer.raw.exec("commit"));
        return result;
      } catch (error) {
        if (this.#writer.raw.inTransaction) this.#writer.raw.exec("rollback");
        throw error;
      } finally {
        tx.open = false;
        // Else every promise of the process carries it on from now on, which up to Node 22 is work for each.
        this.#inside.disable();
      }
    });
  }

  async close(): Promise<void> {
    await this.#mutex.run(async () => {
      this.#reader.raw.close();
      this.#writer.raw.close();
    });
  }

  #isRead(query: SQL): boolean {
    const { text } = this.#reader.render(query);
    return coded(() => this.#reader.prepare(text).readonly);
  }

  /** Inside a unit of work, waiting for the writer would wait for ever and a read would not see what was written. */
  #refuseInside(): void {
    if (this.#inside.getStore()?.open) {
      throw new FieldloopError("internal", "Query: inside a unit of work only its own `tx` may be used");
    }
  }
}

class SqliteTransaction extends SqliteQueries implements Database {
  open = true;
  readonly #writer: Connection;
  #depth = 0;

  constructor(writer: Connection) {
    super();
    this.#writer = writer;
  }

  async all<Row>(query: SQL): Promise<Row[]> {
    this.#check();
    return this.all_<Row>(this.#writer, query);
  }

  async get<Row>(query: SQL): Promise<Row | undefined> {
    return (await this.all<Row>(query))[0];
  }

  async run(query: SQL): Promise<number> {
    this.#check();
    return this.run_(this.#writer, query);
  }

  /** A savepoint: a part that can fail without losing the whole. */
  async transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    this.#check();
    const name = `part_${++this.#depth}`;
    this.#writer.raw.exec(`savepoint ${name}`);
    try {
      const result = await work(this);
      this.#writer.raw.exec(`release ${name}`);
      return result;
    } catch (error) {
      this.#writer.raw.exec(`rollback to ${name}; release ${name}`);
      throw error;
    } finally {
      this.#depth--;
    }
  }

  async close(): Promise<void> {}

  #check(): void {
    if (!this.open) throw new FieldloopError("internal", "Write: this unit of work has already ended");
  }
}

function coded<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (cause) {
    throw sqliteError(cause);
  }
}

function sqliteError(cause: unknown): unknown {
  if (!(cause instanceof Sqlite.SqliteError)) return cause;
  const { code } = cause;
  if (code === "SQLITE_CONSTRAINT_UNIQUE" || code === "SQLITE_CONSTRAINT_PRIMARYKEY")
    return new FieldloopError("already_exists", "Write: a row with this key exists already", { cause });
  if (code === "SQLITE_FULL") return new FieldloopError("storage_full", "Write: the disk is full", { cause });
  if (code.startsWith("SQLITE_IOERR"))
    return new FieldloopError("storage_failed", "Write: the disk refused it", { cause });
  if (code.startsWith("SQLITE_BUSY"))
    return new FieldloopError("unavailable", "Write: the database is locked by another process", { cause });
  return cause;
}
