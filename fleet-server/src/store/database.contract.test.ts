import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { sql } from "drizzle-orm";
import { describe, expect, it } from "vitest";
import type { Database } from "./database.js";
import { describeDatabases } from "./databases.test.support.js";
import { migrate } from "./migrate.js";
import { MIGRATIONS } from "./migrations.js";
import { openSqlite } from "./sqlite.js";

const put = (tx: Database, key: string, value: number) =>
  tx.run(sql`insert into model_labels (model, version, labels) values (${key}, ${value}, '[]')`);
const count = async (database: Database): Promise<number> =>
  (await database.get<{ count: number }>(sql`select count(*) as count from model_labels`))!.count;

describeDatabases("database", (database) => {
  it("returns numbers, text, bytes and null as they were written", async () => {
    const bytes = Uint8Array.from({ length: 300 }, (_, index) => index % 256);
    await database().run(sql`insert into desired (device, revision, payload, envelope, issued)
      values ('a', ${2 ** 40 + 1}, ${bytes}, ${new Uint8Array()}, ${1_790_000_000_123})`);
    await database().run(sql`insert into rollups (device, bucket, model, version, class, count, confidence_sum, latency_sum)
      values ('a', 1, 'm', 1, -1, 3, ${0.5}, ${1e-9})`);
    const row = await database().get<
      Record<string, unknown>
    >(sql`select d.revision, d.payload, d.envelope, d.issued,
      r.class, r.confidence_sum as "confidenceSum", r.latency_sum as "latencySum", null as missing
      from desired d join rollups r on r.device = d.device`);
    expect(row).toMatchObject({
      revision: 2 ** 40 + 1,
      issued: 1_790_000_000_123,
      class: -1,
      confidenceSum: 0.5,
      latencySum: 1e-9,
      missing: null,
    });
    expect(Buffer.from(row!.payload as Uint8Array)).toEqual(Buffer.from(bytes));
    expect((row!.envelope as Uint8Array).length).toBe(0);
    const sums = await database().get<Record<string, unknown>>(
      sql`select count(*) as count, sum(count) as sum, avg(count) as mean from rollups`,
    );
    expect(sums).toEqual({ count: 1, sum: 3, mean: 3 });
  });

  it("divides whole numbers without a remainder, large ones too", async () => {
    const time = 1_790_000_012_345;
    await database().run(
      sql`insert into accuracy (device, bucket, model, version, count, correct) values ('a', ${time}, 'm', 1, 1, 1)`,
    );
    const row = await database().get<{ bucket: number }>(
      sql`select (bucket / ${10_000}) * ${10_000} as bucket from accuracy where bucket >= ${time}`,
    );
    expect(row?.bucket).toBe(1_790_000_010_000);
  });

  it("counts changed rows and returns rows of a write", async () => {
    expect(await put(database(), "a", 1)).toBe(1);
    expect(await database().run(sql`update model_labels set labels = '["x"]' where model = 'b'`)).toBe(0);
    const rows = await database().all(
      sql`insert into model_labels (model, version, labels) values ('c', 1, '[]') returning model`,
    );
    expect(rows).toEqual([{ model: "c" }]);
    expect(
      await database().run(
        sql`insert into model_labels (model, version, labels) values ('c', 1, '[]') on conflict do nothing`,
      ),
    ).toBe(0);
  });

  it("reports a taken key as already_exists", async () => {
    await put(database(), "a", 1);
    await expect(put(database(), "a", 1)).rejects.toMatchObject({ code: "already_exists" });
  });

  it("binds every value: text that looks like SQL is text", async () => {
    const text = "'; drop table model_labels; --";
    await put(database(), text, 1);
    expect(await database().get(sql`select model from model_labels where model = ${text}`)).toEqual({
      model: text,
    });
  });

  it("keeps all of a unit of work or none of it", async () => {
    await database().transaction(async (tx) => {
      await put(tx, "a", 1);
      expect(await count(tx)).toBe(1);
    });
    const failing = database().transaction(async (tx) => {
      await put(tx, "b", 1);
      throw new Error("changed my mind");
    });
    await expect(failing).rejects.toThrow("changed my mind");
    expect(await count(database())).toBe(1);
  });

  it("undoes a failed part without losing the whole", async () => {
    await database().transaction(async (tx) => {
      await put(tx, "a", 1);
      const part = tx.transaction(async (inner) => {
        await put(inner, "b", 1);
        await put(inner, "a", 1);
      });
      await expect(part).rejects.toMatchObject({ code: "already_exists" });
      await put(tx, "c", 1);
    });
    expect(await count(database())).toBe(2);
  });

  it("runs units of work one after the other: none sees half of another", async () => {
    await put(database(), "counter", 0);
    const add = (): Promise<void> =>
      database().transaction(async (tx) => {
        const row = (await tx.get<{ version: number }>(
          tx.dialect === "postgres"
            ? sql`select version from model_labels where model = 'counter' for update`
            : sql`select version from model_labels where model = 'counter'`,
        ))!;
        await new Promise((resolve) => setImmediate(resolve));
        await tx.run(sql`update model_labels set version = ${row.version + 1} where model = 'counter'`);
      });
    await Promise.all(Array.from({ length: 20 }, add));
    expect(await database().get(sql`select version from model_labels`)).toEqual({ version: 20 });
  });

  it("refuses the database itself inside a unit of work, and a unit of work after its end", async () => {
    const wrong = database().transaction(() => put(database(), "a", 1).then(() => undefined));
    await expect(wrong).rejects.toMatchObject({ code: "internal" });
    let kept: Database | undefined;
    await database().transaction(async (tx) => {
      kept = tx;
    });
    await expect(put(kept!, "a", 1)).rejects.toMatchObject({ code: "internal" });
    expect(await put(database(), "a", 1)).toBe(1);
  });

  it("applies each migration once and refuses a database of a newer server", async () => {
    expect(await migrate(database(), MIGRATIONS, () => 2)).toEqual([]);
    const more = [
      ...MIGRATIONS,
      { name: "9999_test", statements: () => ["create table later (id integer primary key)"] },
    ];
    expect(await migrate(database(), more, () => 3)).toEqual(["9999_test"]);
    await expect(migrate(database(), MIGRATIONS, () => 4)).rejects.toMatchObject({ code: "conflict" });
  });

  it("records nothing of a migration that fails in the middle", async () => {
    const broken = {
      name: "9999_broken",
      statements: () => ["create table half (id integer primary key)", "create nonsense"],
    };
    await expect(migrate(database(), [...MIGRATIONS, broken], () => 2)).rejects.toThrow();
    await expect(database().all(sql`select * from half`)).rejects.toThrow();
    expect(await migrate(database(), MIGRATIONS, () => 3)).toEqual([]);
  });
});

describe("SQLite on disk", () => {
  it("syncs every commit, also after the first write in WAL mode", async () => {
    const folder = await mkdtemp(join(tmpdir(), "fieldloop-sqlite-"));
    const path = join(folder, "test.db");
    const database = openSqlite(path);
    try {
      await migrate(database, MIGRATIONS, () => 1);
      await database.transaction(async (tx) => {
        expect(await tx.all(sql.raw("pragma synchronous"))).toEqual([{ synchronous: 2 }]);
        expect(await tx.all(sql.raw("pragma journal_mode"))).toEqual([{ journal_mode: "wal" }]);
        await put(tx, "a", 1);
      });
      await database.transaction(async (tx) => {
        expect(await tx.all(sql.raw("pragma synchronous"))).toEqual([{ synchronous: 2 }]);
      });
      // Another connection sees what was committed, and the reading one cannot write.
      const other = new Sqlite(path, { readonly: true });
      expect(other.prepare("select count(*) as count from model_labels").get()).toEqual({ count: 1 });
      other.close();
    } finally {
      await database.close();
      await rm(folder, { recursive: true, force: true });
    }
  });

  it("reports a file that cannot be opened", () => {
    expect(() => openSqlite("/nowhere/at/all/test.db")).toThrow(
      expect.objectContaining({ code: "storage_failed" }),
    );
  });
});
