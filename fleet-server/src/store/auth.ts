import type { Role } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const AUTH_MIGRATION: Migration = {
  name: "0008_auth",
  statements: (types) => [
    `create table api_tokens (sha256 text primary key, name text not null, role text not null, created ${types.bigint} not null,
      revoked integer not null default 0)`,
    "create unique index api_tokens_name on api_tokens (name)",
    `create table sessions (sha256 text primary key, token_sha256 text not null, created ${types.bigint} not null, expires ${types.bigint} not null)`,
    `create table enrolment_tokens (sha256 text primary key, created ${types.bigint} not null, expires ${types.bigint} not null,
      uses_left integer not null, author text not null)`,
  ],
};

/**
 * Whose a token is (null: a program's), and who answers for what is done with it. Until here a token's name stood for the person, and
 * still does for the tokens of before.
 */
export const TOKEN_PERSONS_MIGRATION: Migration = {
  name: "0011_token_persons",
  statements: () => [
    "alter table api_tokens add column person text",
    "alter table api_tokens add column sponsor text",
    "update api_tokens set person = name, sponsor = name",
  ],
};

/** Who a token stands for. */
export interface TokenOwner {
  readonly name: string;
  readonly role: Role;
  readonly person: string | null;
  readonly sponsor: string;
}

export interface TokenRecord extends TokenOwner {
  readonly created: number;
  readonly revoked: boolean;
}

/** Credentials of people, programs and future devices: only hashes of them. */
export class AuthStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws FieldloopError `already_exists` for a name that is taken */
  async insertToken(tx: Database, token: TokenOwner & { sha256: string; created: number }): Promise<void> {
    await tx.run(sql`insert into api_tokens (sha256, name, role, created, person, sponsor)
      values (${token.sha256}, ${token.name}, ${token.role}, ${token.created}, ${token.person}, ${token.sponsor})`);
  }

  /** A token that may be used. */
  async token(sha256: string): Promise<TokenOwner | undefined> {
    return this.#database.get(
      sql`select name, role, person, sponsor from api_tokens where sha256 = ${sha256} and revoked = 0`,
    );
  }

  async tokens(): Promise<TokenRecord[]> {
    const rows = await this.#database.all<Omit<TokenRecord, "revoked"> & { revoked: number }>(
      sql`select name, role, person, sponsor, created, revoked from api_tokens order by name`,
    );
    return rows.map((row) => ({ ...row, revoked: row.revoked === 1 }));
  }

  async countTokens(): Promise<number> {
    return (await this.#database.get<{ count: number }>(sql`select count(*) as count from api_tokens`))!
      .count;
  }

  async revokeToken(tx: Database, name: string): Promise<boolean> {
    return (await tx.run(sql`update api_tokens set revoked = 1 where name = ${name} and revoked = 0`)) === 1;
  }

  async insertSession(session: {
    sha256: string;
    tokenSha256: string;
    created: number;
    expires: number;
  }): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.run(sql`delete from sessions where expires < ${session.created}`);
      await tx.run(sql`insert into sessions (sha256, token_sha256, created, expires)
        values (${session.sha256}, ${session.tokenSha256}, ${session.created}, ${session.expires})`);
    });
  }

  /** Ends with its token: a revoked token has no sessions. */
  async session(sha256: string, now: number): Promise<TokenOwner | undefined> {
    return this.#database.get(sql`select t.name, t.role, t.person, t.sponsor from sessions s join api_tokens t on t.sha256 = s.token_sha256
      where s.sha256 = ${sha256} and s.expires > ${now} and t.revoked = 0`);
  }

  async deleteSession(sha256: string): Promise<void> {
    await this.#database.run(sql`delete from sessions where sha256 = ${sha256}`);
  }

  async insertEnrolmentToken(token: {
    sha256: string;
    created: number;
    expires: number;
    uses: number;
    author: string;
  }): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.run(sql`delete from enrolment_tokens where expires < ${token.created}`);
      await tx.run(sql`insert into enrolment_tokens (sha256, created, expires, uses_left, author)
        values (${token.sha256}, ${token.created}, ${token.expires}, ${token.uses}, ${token.author})`);
    });
  }

  /** Takes one use, in the caller's unit of work: of any number at once only as many win as there are uses. */
  async takeEnrolmentUse(tx: Database, sha256: string, now: number): Promise<boolean> {
    const taken = await tx.run(sql`update enrolment_tokens set uses_left = uses_left - 1
      where sha256 = ${sha256} and uses_left > 0 and expires > ${now}`);
    return taken === 1;
  }
}
