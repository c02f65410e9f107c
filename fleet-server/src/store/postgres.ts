import { AsyncLocalStorage } from "node:async_hooks";
import { FieldloopError } from "@fieldloop/protocol";
import type { PGlite } from "@electric-sql/pglite";
import type { SQL } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import pg from "pg";
import type { Database } from "./database.js";
import { Mutex } from "./mutex.js";

const CONNECTIONS_MAX = 10;
const CONNECT_TIMEOUT_MS = 10_000;
const STATEMENT_TIMEOUT_MS = 60_000;
/** Object ids of the types whose text form this server reads as a number. */
const BIGINT_OID = 20;
const NUMERIC_OID = 1700;

/** What both drivers offer: one statement on one connection. */
interface Session {
  query(text: string, values: unknown[]): Promise<{ rows: unknown[]; changes: number }>;
}

interface SessionSource {
  /** A session that nobody else uses until `work` is over. */
  exclusive<Result>(work: (session: Session) => Promise<Result>): Promise<Result>;
  /** Any session, for one statement. */
  shared: Session;
  close(): Promise<void>;
}

/** PostgreSQL over a pool of connections. */
export function openPostgres(url: string): Database {
  return new PostgresDatabase(poolSource(url));
}

/** A database of PGlite, and a copy of its files as they are now, a tar of 40 MB when it is new. */
export interface Pglite {
  readonly database: Database;
  copy(): Promise<Blob>;
}

/**
 * PostgreSQL compiled to WebAssembly, in this process and its memory: the same code path without a server. It has one connection.
 * @param files a copy to begin with, which takes a third of the time that a new one takes
 */
export async function openPglite(files?: Blob): Promise<Pglite> {
  const { PGlite } = await import("@electric-sql/pglite");
  const parsers = { [BIGINT_OID]: Number, [NUMERIC_OID]: Number };
  const lite = await PGlite.create({ ...(files === undefined ? {} : { loadDataDir: files }), parsers });
  return { database: new PostgresDatabase(pgliteSource(lite)), copy: () => lite.dumpDataDir("none") };
}

function poolSource(url: string): SessionSource {
  const types = {
    getTypeParser: (oid: number, format?: "text" | "binary") =>
      oid === BIGINT_OID || oid === NUMERIC_OID
        ? Number
        : (pg.types.getTypeParser(oid, format as "text") as (text: string) => unknown),
  };
  const pool = new pg.Pool({
    connectionString: url,
    max: CONNECTIONS_MAX,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    types: types as pg.CustomTypesConfig,
  });
  // A connection that breaks while idle is replaced by the pool; the statement that meets a broken one reports it.
  pool.on("error", () => undefined);
  const session = (client: pg.Pool | pg.PoolClient): Session => ({
    query: async (text, values) => {
      const result = await client.query(text, values);
      return { rows: result.rows as unknown[], changes: result.rowCount ?? 0 };
    },
  });
  return {
    shared: session(pool),
    exclusive: async (work) => {
      const client = await pool.connect();
      let broken = false;
      try {
        return await work(session(client));
      } catch (error) {
        broken = !(error instanceof FieldloopError) && !isDatabaseError(error);
        throw error;
      } finally {
        client.release(broken);
      }
    },
    close: () => pool.end(),
  };
}

function pgliteSource(lite: PGlite): SessionSource {
  const mutex = new Mutex();
  const session: Session = {
    query: async (text, values) => {
      const result = await lite.query(text, values);
      return { rows: result.rows, changes: result.affectedRows ?? 0 };
    },
  };
  return {
    shared: { query: (text, values) => mutex.run(() => session.query(text, values)) },
    exclusive: (work) => mutex.run(() => work(session)),
    close: () => lite.close(),
  };
}

const dialect = new PgDialect();

class PostgresQueries {
  readonly dialect = "postgres";
  readonly session: Session;

  constructor(session: Session) {
    this.session = session;
  }

  async all<Row>(query: SQL): Promise<Row[]> {
    return (await this.execute(query)).rows as Row[];
  }

  async get<Row>(query: SQL): Promise<Row | undefined> {
    return (await this.all<Row>(query))[0];
  }

  async run(query: SQL): Promise<number> {
    return (await this.execute(query)).changes;
  }

  protected async execute(query: SQL): Promise<{ rows: unknown[]; changes: number }> {
    const { sql: text, params } = dialect.sqlToQuery(query);
    try {
      return await this.session.query(text, params.map(bindable));
    } catch (cause) {
      throw postgresError(cause);
    }
  }
}

/** Booleans travel as 0 and 1, as the columns of both databases hold them. */
function bindable(value: unknown): unknown {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (value instanceof Uint8Array && !Buffer.isBuffer(value)) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  return value;
}

class PostgresDatabase extends PostgresQueries implements Database {
  readonly #source: SessionSource;
  readonly #inside = new AsyncLocalStorage<PostgresTransaction>();
  #transactions = 0;

  constructor(source: SessionSource) {
    super(source.shared);
    this.#source = source;
  }

  protected override execute(query: SQL): Promise<{ rows: unknown[]; changes: number }> {
    this.#refuseInside();
    return super.execute(query);
  }

  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    this.#refuseInside();
    return this.#source.exclusive(async (session) => {
      const tx = new PostgresTransaction(session);
      await session.query("begin", []);
      this.#transactions++;
      try {
        const result = await this.#inside.run(tx, () => work(tx));
        await session.query("commit", []);
        return result;
      } catch (error) {
        await session.query("rollback", []).catch(() => undefined);
        throw error;
      } finally {
        tx.open = false;
        // Else every promise of the process carries it on from now on, which up to Node 22 is work for each.
        if (--this.#transactions === 0) this.#inside.disable();
      }
    });
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  /** With one connection it would wait for ever; with a pool it would not see what the unit of work wrote. */
  #refuseInside(): void {
    if (this.#inside.getStore()?.open) {
      throw new FieldloopError("internal", "Query: inside a unit of work only its own `tx` may be used");
    }
  }
}

class PostgresTransaction extends PostgresQueries implements Database {
  open = true;
  #depth = 0;

  protected override execute(query: SQL): Promise<{ rows: unknown[]; changes: number }> {
    if (!this.open) throw new FieldloopError("internal", "Query: this unit of work has already ended");
    return super.execute(query);
  }

  /** A savepoint: a part that can fail without losing the whole. */
  async transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    const name = `part_${++this.#depth}`;
    await this.session.query(`savepoint ${name}`, []);
    try {
      const result = await work(this);
      await this.session.query(`release savepoint ${name}`, []);
      return result;
    } catch (error) {
      await this.session.query(`rollback to savepoint ${name}`, []);
      throw error;
    } finally {
      this.#depth--;
    }
  }

  async close(): Promise<void> {}
}

function isDatabaseError(error: unknown): error is { code: string } {
  return error instanceof Error && "code" in error && /^[0-9A-Z]{5}$/.test(String(error.code));
}

/** PostgreSQL error codes, appendix A of its manual. */
function postgresError(cause: unknown): unknown {
  if (!isDatabaseError(cause)) return cause;
  switch (cause.code) {
    case "23505":
      return new FieldloopError("already_exists", "Write: a row with this key exists already", { cause });
    case "53100":
      return new FieldloopError("storage_full", "Write: the disk is full", { cause });
    case "58030":
      return new FieldloopError("storage_failed", "Write: the disk refused it", { cause });
    case "40001":
    case "40P01":
    case "57014":
      return new FieldloopError("unavailable", "Query: the database could not serve it now", { cause });
    default:
      return cause;
  }
}
