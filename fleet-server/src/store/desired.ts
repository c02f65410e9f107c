import { devicePolicyChangeSchema, type DevicePolicyChange } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const DESIRED_MIGRATION: Migration = {
  name: "0005_desired",
  statements: (types) => [
    `create table desired (
      device text primary key, revision ${types.bigint} not null, payload ${types.blob} not null, envelope ${types.blob} not null,
      issued ${types.bigint} not null)`,
    "create table device_policies (scope text primary key, policy text not null)",
  ],
};

export interface StoredDesired {
  readonly device: string;
  readonly revision: number;
  /** The encoded `desired` message that was signed. */
  readonly payload: Uint8Array;
  /** The signed envelope: what travels. */
  readonly envelope: Uint8Array;
  readonly issued: number;
}

/** Desired states and the policies that they are made from. */
export class DesiredStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async get(device: string, tx: Database = this.#database): Promise<StoredDesired | undefined> {
    return tx.get<StoredDesired>(
      sql`select device, revision, payload, envelope, issued from desired where device = ${device}`,
    );
  }

  async list(after: string, limit: number): Promise<StoredDesired[]> {
    return this.#database.all<StoredDesired>(sql`select device, revision, payload, envelope, issued from desired
      where device > ${after} order by device limit ${limit}`);
  }

  /** Only a higher revision replaces one. */
  async put(tx: Database, desired: StoredDesired): Promise<boolean> {
    const changed = await tx.run(sql`insert into desired (device, revision, payload, envelope, issued)
      values (${desired.device}, ${desired.revision}, ${desired.payload}, ${desired.envelope}, ${desired.issued})
      on conflict (device) do update set revision = excluded.revision, payload = excluded.payload,
        envelope = excluded.envelope, issued = excluded.issued where excluded.revision > desired.revision`);
    return changed === 1;
  }

  /** Policies by scope: `default`, `group:…`, `device:…`. */
  async policies(tx: Database = this.#database): Promise<Map<string, unknown>> {
    const rows = await tx.all<{ scope: string; policy: string }>(
      sql`select scope, policy from device_policies`,
    );
    return new Map(rows.map((row) => [row.scope, JSON.parse(row.policy) as unknown]));
  }

  /** The configuration that was rolled out to a device. */
  async config(
    device: string,
    tx: Database = this.#database,
  ): Promise<{ configId: string; policy: DevicePolicyChange } | undefined> {
    const row = await tx.get<{ configId: string; policy: string }>(
      sql`select config_id as "configId", policy from device_configs where device = ${device}`,
    );
    return row && { configId: row.configId, policy: devicePolicyChangeSchema.parse(JSON.parse(row.policy)) };
  }

  async putConfig(
    tx: Database,
    device: string,
    config: { configId: string; policy: DevicePolicyChange } | null,
  ): Promise<void> {
    if (!config) {
      await tx.run(sql`delete from device_configs where device = ${device}`);
      return;
    }
    await tx.run(sql`insert into device_configs (device, config_id, policy)
      values (${device}, ${config.configId}, ${JSON.stringify(config.policy)})
      on conflict (device) do update set config_id = excluded.config_id, policy = excluded.policy`);
  }

  /** A configuration by its id, so that a roll-back finds what it says. */
  async knownConfig(tx: Database, configId: string): Promise<DevicePolicyChange | undefined> {
    const row = await tx.get<{ policy: string }>(
      sql`select policy from configs where config_id = ${configId}`,
    );
    return row && devicePolicyChangeSchema.parse(JSON.parse(row.policy));
  }

  async addConfig(tx: Database, configId: string, policy: DevicePolicyChange, now: number): Promise<void> {
    await tx.run(sql`insert into configs (config_id, policy, created) values (${configId}, ${JSON.stringify(policy)}, ${now})
      on conflict do nothing`);
  }

  async putPolicy(scope: string, policy: object): Promise<void> {
    await this.#database.run(sql`insert into device_policies (scope, policy) values (${scope}, ${JSON.stringify(policy)})
      on conflict (scope) do update set policy = excluded.policy`);
  }
}
