import { FieldloopError } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import { columnTypes, type Database, type Migration } from "./database.js";

/** Any number, the same in every replica: one of them migrates, the others wait. */
const LOCK_KEY = 7_316_001;

/**
 * Brings the database to the newest schema: every migration of the list that is not yet recorded, in order, each in one
 * transaction with its record in `schema_migrations`.
 * @throws FieldloopError `conflict` where the database was written by a newer server
 */
export async function migrate(
  database: Database,
  migrations: readonly Migration[],
  now: () => number,
): Promise<string[]> {
  const types = columnTypes(database.dialect);
  await database.run(
    sql.raw(
      `create table if not exists schema_migrations (name text primary key, applied ${types.bigint} not null)`,
    ),
  );
  const known = new Set(migrations.map((migration) => migration.name));
  if (known.size !== migrations.length)
    throw new FieldloopError("internal", "Migrate: two migrations have the same name");
  const applied: string[] = [];
  for (const migration of migrations) {
    const done = await database.transaction(async (tx) => {
      if (tx.dialect === "postgres") await tx.all(sql`select pg_advisory_xact_lock(${LOCK_KEY})`);
      const rows = await tx.all<{ name: string }>(sql`select name from schema_migrations`);
      refuseNewer(rows, known);
      if (rows.some((row) => row.name === migration.name)) return false;
      for (const statement of migration.statements(types)) await tx.run(sql.raw(statement));
      await tx.run(sql`insert into schema_migrations (name, applied) values (${migration.name}, ${now()})`);
      return true;
    });
    if (done) applied.push(migration.name);
  }
  return applied;
}

function refuseNewer(rows: readonly { name: string }[], known: ReadonlySet<string>): void {
  const unknown = rows.find((row) => !known.has(row.name));
  if (unknown) {
    throw new FieldloopError(
      "conflict",
      `Migrate: the database has "${unknown.name}", which this version does not know; it was written by a newer one`,
    );
  }
}
