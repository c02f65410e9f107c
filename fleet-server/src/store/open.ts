import { join } from "node:path";
import type { Database } from "./database.js";
import { openPostgres } from "./postgres.js";
import { openSqlite } from "./sqlite.js";

/** `postgres://…` opens PostgreSQL, anything else is SQLite in `fieldloop.db` of the data folder. */
export function openDatabase(dataDir: string, databaseUrl: string | undefined): Database {
  if (databaseUrl !== undefined && /^postgres(?:ql)?:/.test(databaseUrl)) return openPostgres(databaseUrl);
  return openSqlite(join(dataDir, "fieldloop.db"));
}
