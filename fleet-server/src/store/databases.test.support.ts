import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync } from "node:fs";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, describe, it } from "vitest";
import type { Database } from "./database.js";
import { migrate } from "./migrate.js";
import { MIGRATIONS } from "./migrations.js";
import { openPglite, openPostgres } from "./postgres.js";
import { openSqlite } from "./sqlite.js";

/**
 * Declares the same cases for every database: a file of SQLite, PostgreSQL in this process, and a database
 * of its own on the server of `FIELDLOOP_TEST_POSTGRES_URL` (test files run side by side). `database()` is empty but migrated before each case.
 */
export function describeDatabases(name: string, cases: (database: () => Database) => void): void {
  describe(`${name} on SQLite`, () => {
    let folder = "";
    let database: Database | undefined;
    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "fieldloop-store-"));
      database = openSqlite(join(folder, "test.db"));
      await migrate(database, MIGRATIONS, () => 1);
    });
    afterEach(async () => {
      await database?.close();
      await rm(folder, { recursive: true, force: true });
    });
    cases(() => database!);
  });
  describePostgres(`${name} on PostgreSQL (PGlite)`, sharedPglite, cases);
  const url = process.env.FIELDLOOP_TEST_POSTGRES_URL;
  if (url === undefined) {
    it.skip(`${name} on a PostgreSQL server: FIELDLOOP_TEST_POSTGRES_URL is not set`, () => undefined);
  } else describePostgres(`${name} on a PostgreSQL server`, () => openOwnDatabase(url), cases);
}

let pglite: Promise<Database> | undefined;
/** The folder of this run of the tests (`vitest.config.ts`), where it has one. */
const RUN_FOLDER = process.env.FIELDLOOP_TEST_RUN_FOLDER;
/** Three times what making a database takes on a machine with much to do. */
const MAKE_TIMEOUT_MS = 30_000;

/** PostgreSQL in this process: starting it takes seconds of a processor, so all tests in it share one, which lives on when closed. */
export async function sharedPglite(): Promise<Database> {
  pglite ??= firstOrCopy();
  const database = await pglite;
  return {
    dialect: database.dialect,
    all: (query) => database.all(query),
    get: (query) => database.get(query),
    run: (query) => database.run(query),
    transaction: (work) => database.transaction(work),
    close: () => Promise.resolve(),
  };
}

/** The first process of a run that wants one makes it, and the others begin with a copy. */
async function firstOrCopy(): Promise<Database> {
  if (RUN_FOLDER === undefined) return (await openPglite()).database;
  const path = join(RUN_FOLDER, "pglite.tar");
  if (!isFirst(`${path}.making`)) {
    const deadline = Date.now() + MAKE_TIMEOUT_MS;
    while (!existsSync(path) && Date.now() < deadline) await setTimeout(50);
    return (await openPglite(existsSync(path) ? new Blob([await readFile(path)]) : undefined)).database;
  }
  const made = await openPglite();
  await writeFile(`${path}.new`, (await made.copy()).stream());
  await rename(`${path}.new`, path);
  return made.database;
}

function isFirst(mark: string): boolean {
  try {
    mkdirSync(mark);
    return true;
  } catch {
    return false;
  }
}

/** The newest tables of PostgreSQL, without a row. Where they are there already only rows go: a tenth of the work of making them anew. */
export async function renew(database: Database): Promise<void> {
  const tables = await database.all<{ name: string }>(
    sql`select table_name as name from information_schema.tables where table_schema = 'public'`,
  );
  if (await isNewest(database, tables)) {
    return database.transaction(async (tx) => {
      for (const { name } of tables) if (name !== MIGRATED) await tx.run(sql.raw(`delete from "${name}"`));
    });
  }
  await database.run(sql.raw("drop schema public cascade"));
  await database.run(sql.raw("create schema public"));
  await migrate(database, MIGRATIONS, () => 1);
  newest = (await database.all(sql`select 1 from information_schema.tables where table_schema = 'public'`))
    .length;
}

const MIGRATED = "schema_migrations";
/** How many tables the migrations make; a test may have made others. */
let newest: number | undefined;

async function isNewest(database: Database, tables: readonly { readonly name: string }[]): Promise<boolean> {
  if (tables.length !== newest) return false;
  const applied = await database.all(sql`select name from schema_migrations`);
  return applied.length === MIGRATIONS.length;
}

async function openOwnDatabase(url: string): Promise<Database> {
  const own = new URL(url);
  own.pathname = `fieldloop_test_${randomBytes(6).toString("hex")}`;
  const server = openPostgres(url);
  try {
    await server.run(sql.raw(`create database ${own.pathname.slice(1)}`));
  } finally {
    await server.close();
  }
  return openPostgres(own.href);
}

function describePostgres(
  name: string,
  open: () => Promise<Database>,
  cases: (database: () => Database) => void,
): void {
  describe(name, () => {
    let database: Database | undefined;
    beforeAll(async () => {
      database = await open();
    });
    beforeEach(async () => {
      await renew(database!);
    });
    afterAll(() => database?.close());
    cases(() => database!);
  });
}
