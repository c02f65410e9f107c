import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FieldloopError } from "@fieldloop/protocol";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { silent, startTestServer, until } from "../kit.test.support.js";
import { ServerLease } from "./server-lease.js";

const server = process.env.FIELDLOOP_TEST_POSTGRES_URL;
if (server === undefined)
  console.warn("tests of two servers on one PostgreSQL are skipped: FIELDLOOP_TEST_POSTGRES_URL is not set");

describe.skipIf(server === undefined)("one server on a PostgreSQL database", () => {
  const name = `fieldloop_lease_${randomBytes(6).toString("hex")}`;
  const url = server === undefined ? "" : Object.assign(new URL(server), { pathname: name }).href;
  const lost: FieldloopError[] = [];
  const leases: ServerLease[] = [];
  const query = async (text: string, at = url): Promise<void> => {
    const client = new pg.Client({ connectionString: at });
    await client.connect();
    try {
      await client.query(text);
    } finally {
      await client.end();
    }
  };
  beforeAll(() => query(`create database ${name}`, server));
  afterAll(() => query(`drop database ${name} with (force)`, server));
  afterEach(async () => {
    for (const lease of leases.splice(0)) await lease.release();
    lost.length = 0;
  });
  const said: string[] = [];
  const logger = { ...silent, info: (_: object, message: string) => void said.push(message) };
  const lease = (waitMs: number): ServerLease => {
    const made = new ServerLease({ url, logger, waitMs, onLost: (error) => void lost.push(error) });
    leases.push(made);
    return made;
  };
  /** Ends the session that holds the database, as a network that breaks does. */
  const cut = (before = ""): Promise<void> =>
    query(`${before} select pg_terminate_backend(pid) from pg_locks
      where locktype = 'advisory' and objid = 7316002 and granted
        and database = (select oid from pg_database where datname = current_database())`);
  const ANOTHER = "update server_lease set epoch = epoch + 1, holder = 'another';";

  it("refuses a second, naming the first, and lets it wait for the first's end", async () => {
    const first = lease(0);
    await first.acquire();
    await expect(lease(0).acquire()).rejects.toMatchObject({
      code: "database_in_use",
      message: expect.stringContaining(`process ${process.pid}`),
    });
    const second = lease(10_000);
    const taken = second.acquire();
    await first.release();
    await taken;
    expect([first.held, second.held]).toEqual([false, true]);
  });

  it("is let go by a process that is killed", async () => {
    const module = JSON.stringify(new URL("./server-lease.js", import.meta.url).href);
    const code = `const { ServerLease } = await import(${module});
      const quiet = () => undefined;
      const logger = { debug: quiet, info: quiet, warn: quiet, error: quiet };
      await new ServerLease({ url: process.env.LEASE_URL, logger, waitMs: 0, onLost: quiet }).acquire();
      console.log("held");`;
    const env = { ...process.env, LEASE_URL: url };
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    await expect(lease(0).acquire()).rejects.toMatchObject({ code: "database_in_use" });
    child.kill("SIGKILL");
    await once(child, "exit");
    await expect(lease(10_000).acquire()).resolves.toBeUndefined();
  });

  it("goes on after a broken connection where nobody came between, and stops where somebody did", async () => {
    const first = lease(0);
    await first.acquire();
    await cut();
    await until("it is held again", () => said.includes("the database is held again"));
    expect([first.held, lost]).toEqual([true, []]);
    await cut(ANOTHER);
    await until("it says so", () => lost.length === 1);
    expect([first.held, lost[0]!.code, lost[0]!.message]).toEqual([
      false,
      "database_in_use",
      expect.stringContaining("another"),
    ]);
  });

  it("holds for whole servers, and one that lost the database decides nothing", async () => {
    const options = {
      databaseUrl: url,
      leaseWaitMs: 0,
      onLost: (error: FieldloopError) => void lost.push(error),
    };
    const first = await startTestServer(options);
    const other = await mkdtemp(join(tmpdir(), "fieldloop-second-"));
    await expect(startTestServer({ ...options, dataDir: other })).rejects.toMatchObject({
      code: "database_in_use",
    });
    await cut(ANOTHER);
    await until("it was told", () => lost.length === 1);
    const body = {
      change: { kind: "config", policy: { predictionsIntervalSeconds: 7 } },
      target: { devices: ["cam-1"] },
    };
    expect(await first.api.refused("POST", "/api/v1/rollouts", body)).toEqual([503, "unavailable"]);
    await first.end();
    const second = await startTestServer({ ...options, dataDir: other });
    await second.end();
  });
});
