import { FieldloopError } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Clock } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import type { Database, Migration } from "./database.js";

export const IDEMPOTENCY_MIGRATION: Migration = {
  name: "0001_idempotency",
  statements: (types) => [
    `create table idempotency (
      principal text not null, key text not null, request_sha256 text not null, created ${types.bigint} not null,
      status integer, content_type text, body text, primary key (principal, key))`,
    "create index idempotency_created on idempotency (created)",
  ],
};

/** Which answers are encrypted. */
export const IDEMPOTENCY_SEALED_MIGRATION: Migration = {
  name: "0010_idempotency_sealed",
  // Answers of before may tell secrets as they are.
  statements: () => ["delete from idempotency", "alter table idempotency add column sealed integer"],
};

export interface StoredAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  /** It tells a secret this once, and lies here encrypted. */
  readonly secret: boolean;
}

/** What encrypts such answers. */
export interface AnswerSeal {
  seal(text: string, about: string): string;
  unseal(sealed: string, about: string): string;
}

export interface IdempotencyStore {
  /**
   * Claims a key for one request.
   * @returns `claimed`, or the answer that the same request got before
   * @throws FieldloopError `idempotency_conflict` for another request, `conflict` while the first is still running
   */
  claim(principal: string, key: string, requestSha256: string): Promise<"claimed" | StoredAnswer>;
  complete(principal: string, key: string, answer: StoredAnswer): Promise<void>;
  release(principal: string, key: string): Promise<void>;
}

interface Row {
  requestSha256: string;
  created: number;
  status: number | null;
  contentType: string | null;
  body: string | null;
  sealed: number | null;
}

export class SqlIdempotencyStore implements IdempotencyStore {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #seal: AnswerSeal;

  constructor(database: Database, clock: Clock, seal: AnswerSeal) {
    this.#database = database;
    this.#clock = clock;
    this.#seal = seal;
  }

  claim(principal: string, key: string, requestSha256: string): Promise<"claimed" | StoredAnswer> {
    const now = this.#clock.now();
    return this.#database.transaction(async (tx) => {
      // A claim whose process died before it answered must not block its key for ever.
      await tx.run(sql`delete from idempotency where created < ${now - SERVER_LIMITS.idempotencyKeptMs}
        or (status is null and created < ${now - SERVER_LIMITS.idempotencyPendingMs})`);
      const inserted = await tx.run(sql`insert into idempotency (principal, key, request_sha256, created)
        values (${principal}, ${key}, ${requestSha256}, ${now}) on conflict do nothing`);
      if (inserted === 1) return "claimed";
      const row = (await tx.get<Row>(sql`select request_sha256 as "requestSha256", created, status,
        content_type as "contentType", body, sealed from idempotency where principal = ${principal} and key = ${key}`))!;
      const answer = answerOf(row, requestSha256, key);
      const about = aboutOf(principal, key);
      return answer.secret ? { ...answer, body: this.#seal.unseal(answer.body, about) } : answer;
    });
  }

  async complete(principal: string, key: string, answer: StoredAnswer): Promise<void> {
    const body = answer.secret ? this.#seal.seal(answer.body, aboutOf(principal, key)) : answer.body;
    await this.#database.run(sql`update idempotency set status = ${answer.status}, content_type = ${answer.contentType},
      body = ${body}, sealed = ${answer.secret ? 1 : 0} where principal = ${principal} and key = ${key}`);
  }

  async release(principal: string, key: string): Promise<void> {
    await this.#database.run(sql`delete from idempotency where principal = ${principal} and key = ${key}`);
  }
}

function answerOf(row: Row, requestSha256: string, key: string): StoredAnswer {
  if (row.requestSha256 !== requestSha256) {
    throw new FieldloopError(
      "idempotency_conflict",
      `Use Idempotency-Key: "${key}" was used for another request`,
    );
  }
  if (row.status === null) {
    throw new FieldloopError(
      "conflict",
      `Use Idempotency-Key: the first request with "${key}" is still running`,
    );
  }
  const contentType = row.contentType ?? "application/json";
  return { status: row.status, contentType, body: row.body ?? "", secret: row.sealed === 1 };
}

/** Encrypts kept answers with the key in use; one whose key is missing is forgotten, as its time would have done within a day. */
export async function reencryptAnswers(
  database: Database,
  box: AnswerSeal & { readonly isCurrent: (text: string) => boolean },
): Promise<void> {
  const rows = await database.all<{ principal: string; key: string; body: string }>(
    sql`select principal, key, body from idempotency where sealed = 1`,
  );
  for (const { principal, key, body } of rows.filter((row) => !box.isCurrent(row.body))) {
    const about = aboutOf(principal, key);
    const fresh = attempt(() => box.seal(box.unseal(body, about), about));
    const where = sql`where principal = ${principal} and key = ${key}`;
    if (fresh === undefined) await database.run(sql`delete from idempotency ${where}`);
    else await database.run(sql`update idempotency set body = ${fresh} ${where}`);
  }
}

function attempt(work: () => string): string | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

function aboutOf(principal: string, key: string): string {
  return `the answer to Idempotency-Key "${key}" of ${principal}`;
}
