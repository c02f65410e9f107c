import type { Manifest } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const REGISTRY_MIGRATION: Migration = {
  name: "loop_0002_registry",
  statements: (types) => [
    `create table model_versions (model text not null, version integer not null, package_sha256 text not null unique,
      manifest_bytes integer not null, manifest text not null, statement ${types.blob} not null, bytes ${types.bigint} not null,
      created ${types.bigint} not null, published ${types.bigint} not null, published_by text not null,
      primary key (model, version))`,
  ],
};

/** A published version: its manifest, its size, what it is made for. */
export interface StoredVersion {
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
  readonly manifestBytes: number;
  readonly manifest: Manifest;
  /** All files of the package and its manifest. */
  readonly bytes: number;
  /** What it is made for; null: any device class. */
  readonly deviceClasses: readonly string[] | null;
  readonly created: number;
  readonly published: number;
  readonly publishedBy: string;
}

type Row = Omit<StoredVersion, "manifest" | "deviceClasses"> & {
  manifest: string;
  deviceClasses: string | null;
};

const columns =
  sql.raw(`model, version, package_sha256 as "packageSha256", manifest_bytes as "manifestBytes", manifest,
  bytes, device_classes as "deviceClasses", created, published, published_by as "publishedBy"`);

/** Versions only come; nothing of one changes but the reason for which it was let through. */
export class RegistryStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws FieldloopError `already_exists` for a number or package that is there */
  async add(version: StoredVersion): Promise<void> {
    await this.#database.run(sql`insert into model_versions (model, version, package_sha256, manifest_bytes, manifest,
        bytes, device_classes, created, published, published_by)
      values (${version.model}, ${version.version}, ${version.packageSha256}, ${version.manifestBytes},
        ${JSON.stringify(version.manifest)}, ${version.bytes},
        ${version.deviceClasses === null ? null : JSON.stringify(version.deviceClasses)}, ${version.created},
        ${version.published}, ${version.publishedBy})`);
  }

  /** Why a version without a passing evaluation may be rolled out. @returns false where there is no such version */
  async setForceReason(model: string, version: number, reason: string): Promise<boolean> {
    const changed = await this.#database.run(
      sql`update model_versions set force_reason = ${reason} where model = ${model} and version = ${version}`,
    );
    return changed === 1;
  }

  async get(model: string, version: number): Promise<StoredVersion | undefined> {
    const row = await this.#database.get<Row>(
      sql`select ${columns} from model_versions where model = ${model} and version = ${version}`,
    );
    return row && fromRow(row);
  }

  async getByPackage(packageSha256: string): Promise<StoredVersion | undefined> {
    const row = await this.#database.get<Row>(
      sql`select ${columns} from model_versions where package_sha256 = ${packageSha256}`,
    );
    return row && fromRow(row);
  }

  async findPublishedBy(model: string, publishedBy: string): Promise<StoredVersion | undefined> {
    const row = await this.#database.get<Row>(sql`select ${columns} from model_versions
      where model = ${model} and published_by = ${publishedBy} order by version desc limit 1`);
    return row && fromRow(row);
  }

  /** By model, the newest version first. */
  async list(model?: string): Promise<StoredVersion[]> {
    const where = model === undefined ? sql`` : sql`where model = ${model}`;
    const rows = await this.#database.all<Row>(
      sql`select ${columns} from model_versions ${where} order by model, version desc`,
    );
    return rows.map(fromRow);
  }

  /** 0 where the model has no version. */
  async latestNumber(model: string): Promise<number> {
    const row = await this.#database.get<{ latest: number | null }>(
      sql`select max(version) as latest from model_versions where model = ${model}`,
    );
    return row?.latest ?? 0;
  }
}

function fromRow(row: Row): StoredVersion {
  return {
    ...row,
    manifest: JSON.parse(row.manifest) as Manifest,
    deviceClasses: row.deviceClasses === null ? null : (JSON.parse(row.deviceClasses) as string[]),
  };
}
