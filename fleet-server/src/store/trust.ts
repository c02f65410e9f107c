import { FieldloopError, type TrustRole } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const TRUST_MIGRATION: Migration = {
  name: "trust_0001_repository",
  statements: (types) => [
    `create table trust_metadata (role text not null, version integer not null, bytes ${types.blob} not null,
      created ${types.bigint} not null, primary key (role, version))`,
    `create table trust_targets (path text not null, sha256 text not null, bytes ${types.bigint} not null,
      since integer not null, primary key (path, sha256))`,
    "create table trust_values (name text primary key, value text not null)",
    `create table trust_signatures (request text not null, role text not null, key_id text not null, signature text not null,
      primary key (request, role, key_id))`,
  ],
};

/** Statements of packages are targets now; which device classes a version is for, and why one was let through, stand beside it. */
export const REGISTRY_TRUST_MIGRATION: Migration = {
  name: "trust_0002_registry",
  statements: () => [
    "alter table model_versions drop column statement",
    "alter table model_versions add column device_classes text",
    "alter table model_versions add column force_reason text",
  ],
};

export interface StoredMetadata {
  readonly role: TrustRole;
  readonly version: number;
  readonly bytes: Uint8Array;
}

export interface StoredTarget {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** One signature of an open request. */
export interface StoredSignature {
  readonly role: "root" | "targets";
  readonly keyId: string;
  readonly signature: string;
}

/** Names of single values: the staged roles and the open request, as JSON. */
export type TrustValue = "staged" | "request";

/** The trust repository's rows. Metadata only come; what is no longer read is removed by {@link forgetBefore}. */
export class TrustStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws FieldloopError `conflict` where another server published the same version meanwhile */
  async add({ role, version, bytes }: StoredMetadata, created: number): Promise<void> {
    const added =
      await this.#database.run(sql`insert into trust_metadata (role, version, bytes, created) values (${role}, ${version}, ${bytes}, ${created})
      on conflict (role, version) do nothing`);
    if (added === 0) {
      throw new FieldloopError("conflict", `Publish ${role} metadata: version ${version} is there already`);
    }
  }

  async get(role: TrustRole, version: number): Promise<Uint8Array | undefined> {
    const row = await this.#database.get<{ bytes: Uint8Array }>(
      sql`select bytes from trust_metadata where role = ${role} and version = ${version}`,
    );
    return row && new Uint8Array(row.bytes);
  }

  async newest(role: TrustRole): Promise<StoredMetadata | undefined> {
    const row = await this.#database.get<{ version: number; bytes: Uint8Array }>(
      sql`select version, bytes from trust_metadata where role = ${role} order by version desc limit 1`,
    );
    return row && { role, version: row.version, bytes: new Uint8Array(row.bytes) };
  }

  /** Roots stay for ever: a device that was away walks through all of them. */
  async forgetBefore(role: Exclude<TrustRole, "root">, version: number): Promise<void> {
    await this.#database.run(sql`delete from trust_metadata where role = ${role} and version < ${version}`);
  }

  /** @param since version of the targets metadata that name it first */
  async addTarget({ path, sha256, bytes }: StoredTarget, since: number): Promise<void> {
    await this.#database.run(sql`insert into trust_targets (path, sha256, bytes, since)
      values (${path}, ${sha256}, ${bytes}, ${since}) on conflict (path, sha256) do nothing`);
  }

  async target(path: string, sha256: string): Promise<StoredTarget | undefined> {
    return this.#database.get<StoredTarget>(
      sql`select path, sha256, bytes from trust_targets where path = ${path} and sha256 = ${sha256}`,
    );
  }

  /** Every target that was ever signed. */
  async targets(): Promise<StoredTarget[]> {
    return this.#database.all<StoredTarget>(sql`select path, sha256, bytes from trust_targets`);
  }

  async value(name: TrustValue): Promise<string | undefined> {
    const row = await this.#database.get<{ value: string }>(
      sql`select value from trust_values where name = ${name}`,
    );
    return row?.value;
  }

  async setValue(name: TrustValue, value: string | undefined): Promise<void> {
    if (value === undefined) {
      await this.#database.run(sql`delete from trust_values where name = ${name}`);
      return;
    }
    await this.#database.run(sql`insert into trust_values (name, value) values (${name}, ${value})
      on conflict (name) do update set value = excluded.value`);
  }

  async addSignature(request: string, { role, keyId, signature }: StoredSignature): Promise<void> {
    await this.#database.run(sql`insert into trust_signatures (request, role, key_id, signature)
      values (${request}, ${role}, ${keyId}, ${signature})
      on conflict (request, role, key_id) do update set signature = excluded.signature`);
  }

  async signatures(request: string): Promise<StoredSignature[]> {
    return this.#database.all<StoredSignature>(
      sql`select role, key_id as "keyId", signature from trust_signatures where request = ${request} order by role, key_id`,
    );
  }

  async forgetSignatures(): Promise<void> {
    await this.#database.run(sql`delete from trust_signatures`);
  }
}
