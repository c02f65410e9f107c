import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import type { Database } from "./database.js";
import { openPostgres } from "./postgres.js";
import { openSqlite } from "./sqlite.js";

/**
 * `postgres://…` opens PostgreSQL; without an address it is SQLite in `fieldloop.db` of the data folder.
 * @throws FieldloopError `invalid_argument` for any other address: to store elsewhere than asked would look like a loss later
 */
export function openDatabase(dataDir: string, databaseUrl: string | undefined): Database {
  if (databaseUrl !== undefined && isPostgresUrl(databaseUrl)) return openPostgres(databaseUrl);
  if (databaseUrl !== undefined && databaseUrl !== "") {
    const scheme = databaseUrl.slice(0, databaseUrl.indexOf(":") + 1).slice(0, 40);
    throw new FieldloopError(
      "invalid_argument",
      `Open database: an address that begins with "${scheme}", wanted "postgres:" or none for SQLite`,
    );
  }
  return openSqlite(join(dataDir, "fieldloop.db"));
}

export function isPostgresUrl(url: string): boolean {
  return /^postgres(?:ql)?:/.test(url);
}
