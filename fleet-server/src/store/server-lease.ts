import { hostname } from "node:os";
import { FieldloopError } from "@fieldloop/protocol";
import pg from "pg";
import type { Logger } from "../context.js";

/**
 * One server works on a PostgreSQL database: broker, ingest and rollouts of a second one would know nothing of the first. The right
 * to it is a lock of a session (pg_advisory_lock, PostgreSQL manual 13.3.5) on a connection of its own: it ends with the process, or,
 * where a machine or network died, when the session was idle for too long. Each holder has a number of its own, so that one that
 * lost the connection knows whether another had the database meanwhile.
 */

/** Any number, the same in every server; another than that of migrations. */
const LOCK_KEY = 7_316_002;
/** The holder asks so often, and PostgreSQL ends a session that was not heard of for longer: the holder notices first. */
const BEAT_MS = 4_000;
const QUERY_TIMEOUT_MS = 4_000;
const IDLE_MS_MAX = 15_000;
const RETRY_MS = 250;

export interface LeaseOptions {
  readonly url: string;
  readonly logger: Logger;
  /** How long to wait for another server to end; that of a dead machine is let go after 15 s. */
  readonly waitMs: number;
  /** Another server has the database now: this one must stop. */
  readonly onLost: (error: FieldloopError) => void;
}

export class ServerLease {
  readonly #options: LeaseOptions;
  #client: pg.Client | undefined;
  #beat: NodeJS.Timeout | undefined;
  #epoch = 0;
  #ended = false;

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  /** While it is not, nothing may be decided: the connection is gone, and another server may have the database. */
  get held(): boolean {
    return this.#client !== undefined;
  }

  /** @throws FieldloopError `database_in_use` where another server has it, `unavailable` where the database does not answer */
  async acquire(): Promise<void> {
    const client = await this.#take(this.#options.waitMs);
    await client.query(
      "create table if not exists server_lease (id integer primary key, epoch bigint not null, holder text not null)",
    );
    const next = await client.query<{ epoch: string }>(
      `insert into server_lease (id, epoch, holder) values (1, 1, $1)
      on conflict (id) do update set epoch = server_lease.epoch + 1, holder = excluded.holder returning epoch`,
      [holder()],
    );
    this.#epoch = Number(next.rows[0]!.epoch);
    this.#hold(client);
  }

  async release(): Promise<void> {
    this.#ended = true;
    clearInterval(this.#beat);
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }

  async #take(waitMs: number): Promise<pg.Client> {
    const until = performance.now() + waitMs;
    let told = false;
    for (;;) {
      const client = await this.#connect();
      try {
        const { rows } = await client.query<{ got: boolean }>("select pg_try_advisory_lock($1) as got", [
          LOCK_KEY,
        ]);
        if (rows[0]!.got) return client;
        if (performance.now() >= until) throw await inUse(client);
        if (!told)
          this.#options.logger.warn(
            { holder: await holderOf(client) },
            "another server has the database: waiting for its end",
          );
        told = true;
      } catch (error) {
        await client.end().catch(() => undefined);
        throw error;
      }
      await client.end().catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: this.#options.url,
      application_name: holder(),
      keepAlive: true,
      connectionTimeoutMillis: QUERY_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
    });
    client.on("error", () => this.#lose(client));
    client.on("end", () => this.#lose(client));
    try {
      await client.connect();
      // Before PostgreSQL 14 there is no such setting: there TCP has to notice that a machine died.
      await client.query(`set idle_session_timeout = ${IDLE_MS_MAX}`).catch(() => undefined);
      return client;
    } catch (cause) {
      await client.end().catch(() => undefined);
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new FieldloopError("unavailable", `Start server: the database cannot be asked: ${reason}`, {
        cause,
      });
    }
  }

  #hold(client: pg.Client): void {
    this.#client = client;
    clearInterval(this.#beat);
    this.#beat = setInterval(() => {
      client.query("select 1").catch(() => this.#lose(client));
    }, BEAT_MS);
  }

  #lose(client: pg.Client): void {
    if (this.#ended || this.#client !== client) return;
    this.#client = undefined;
    clearInterval(this.#beat);
    this.#options.logger.warn(
      {},
      "the connection that holds the database is gone: nothing is decided until it is back",
    );
    void client.end().catch(() => undefined);
    void this.#regain();
  }

  /** The same number: nobody else had it. PostgreSQL may be away for as long as it likes; until it answers nobody has it. */
  async #regain(): Promise<void> {
    while (!this.#ended) {
      let client: pg.Client | undefined;
      try {
        client = await this.#take(0);
        const { rows } = await client.query<{ epoch: string; holder: string }>(
          "select epoch, holder from server_lease where id = 1",
        );
        if (Number(rows[0]?.epoch) !== this.#epoch) throw taken(rows[0]?.holder ?? "another server");
        if (this.#ended) {
          await client.end();
          return;
        }
        this.#hold(client);
        this.#options.logger.info({}, "the database is held again");
        return;
      } catch (error) {
        await client?.end().catch(() => undefined);
        // Its own session of before may live on for a while; a number that grew says that another server was there.
        if (
          error instanceof FieldloopError &&
          error.code === "database_in_use" &&
          !error.message.includes(holder())
        ) {
          if (!this.#ended) this.#options.onLost(error);
          return;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** Names this process to people who look at the database. */
function holder(): string {
  return `fieldloop server ${hostname()} process ${process.pid}`.slice(0, 63);
}

async function holderOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ name: string }>(
    `select a.application_name as name from pg_locks l join pg_stat_activity a on a.pid = l.pid
      where l.locktype = 'advisory' and l.granted and l.classid = 0 and l.objid = $1
      and l.database = (select oid from pg_database where datname = current_database())`,
    [LOCK_KEY],
  );
  return rows[0]?.name ?? "another server";
}

async function inUse(client: pg.Client): Promise<FieldloopError> {
  return taken(await holderOf(client));
}

function taken(by: string): FieldloopError {
  return new FieldloopError(
    "database_in_use",
    `Start server: "${by}" works on this database; one server at a time: stop it, or give this one a database of its own`,
  );
}
