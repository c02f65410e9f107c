import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, describe } from "vitest";
import type { Database } from "./database.js";
import { migrate } from "./migrate.js";
import { MIGRATIONS } from "./migrations.js";
import { openPglite } from "./postgres.js";
import { openSqlite } from "./sqlite.js";

/**
 * Declares the same cases for every database: a file of SQLite, and PostgreSQL in this process. `database()` is empty but migrated
 * before each case.
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
  describe(`${name} on PostgreSQL (PGlite)`, () => {
    let database: Database | undefined;
    beforeAll(async () => {
      database = await openPglite();
    });
    beforeEach(async () => {
      await database!.run(sql.raw("drop schema public cascade"));
      await database!.run(sql.raw("create schema public"));
      await migrate(database!, MIGRATIONS, () => 1);
    });
    afterAll(() => database?.close());
    cases(() => database!);
  });
}
