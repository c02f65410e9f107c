import { deviceIdSchema, stateSchema, type DeviceState, type Facts } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { IdentityConflict, KnownAgent } from "../domain/identity.js";
import type { Database, Migration } from "./database.js";

export const DEVICES_MIGRATION: Migration = {
  name: "0003_devices",
  statements: (types) => [
    `create table devices (
      device text primary key, tags text not null, facts text not null, enrolled ${types.bigint} not null,
      suspended integer not null default 0, credential_sha256 text not null,
      online integer not null default 0, presence_boot ${types.bigint} not null default 0, last_seen ${types.bigint},
      state text, state_boot ${types.bigint} not null default 0, state_time ${types.bigint},
      running_model text, running_version integer, running_package_sha256 text,
      warnings text not null default '[]')`,
    "create index devices_running on devices (running_model, running_version)",
    "create table device_groups (name text primary key, devices text, selector text)",
  ],
};

export type Tags = Record<string, string>;
export type Warnings = DeviceState["warnings"];

/** What a rollout looks at of a device with several sources. */
export const DEVICE_LANES_MIGRATION: Migration = {
  name: "0010_device_lanes",
  statements: () => ["alter table devices add column lanes text"],
};

/** The little that a desired state is made from. */
export interface DeviceBrief {
  readonly tags: Tags;
  readonly suspended: boolean;
  readonly lanes: readonly { readonly name: string; readonly model: string | null }[];
}

/** Devices named in one statement. */
const DEVICES_PER_QUERY = 500;

/** Which agent was last heard under the identity, and whether another one was. */
export const DEVICE_IDENTITY_MIGRATION: Migration = {
  name: "0011_device_identity",
  statements: () => [
    "alter table devices add column presence_instance text",
    "alter table devices add column identity_conflict text",
  ],
};

/** A device as stored. */
export interface DeviceRecord {
  readonly device: string;
  readonly tags: Tags;
  readonly facts: Facts;
  readonly enrolled: number;
  readonly suspended: boolean;
  readonly online: boolean;
  readonly lastSeen: number | null;
  readonly state: DeviceState | null;
  readonly warnings: Warnings;
  readonly conflict: IdentityConflict | null;
}

interface Row {
  device: string;
  tags: string;
  facts: string;
  enrolled: number;
  suspended: number;
  online: number;
  lastSeen: number | null;
  state: string | null;
  warnings: string;
  conflict: string | null;
}

const COLUMNS: SQL = sql.raw(
  `device, tags, facts, enrolled, suspended, online, last_seen as "lastSeen", state, warnings, identity_conflict as "conflict"`,
);

/** Devices and groups. A method that takes a `Database` first is part of its caller's unit of work. */
export class DeviceStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async insert(
    tx: Database,
    device: { device: string; tags: Tags; facts: Facts; enrolled: number; credentialSha256: string },
  ): Promise<void> {
    await tx.run(sql`insert into devices (device, tags, facts, enrolled, credential_sha256) values
      (${deviceIdSchema.parse(device.device)}, ${JSON.stringify(device.tags)}, ${JSON.stringify(device.facts)},
       ${device.enrolled}, ${device.credentialSha256})`);
  }

  async get(device: string): Promise<DeviceRecord | undefined> {
    const row = await this.#database.get<Row>(sql`select ${COLUMNS} from devices where device = ${device}`);
    return row && record(row);
  }

  /** In the order of their ids. */
  async list(after: string, limit: number): Promise<DeviceRecord[]> {
    const rows = await this.#database.all<Row>(
      sql`select ${COLUMNS} from devices where device > ${after} order by device limit ${limit}`,
    );
    return rows.map(record);
  }

  /** What health is judged by, of every device; the large columns are not read. */
  async signs(): Promise<
    Pick<DeviceRecord, "online" | "lastSeen" | "warnings" | "conflict" | "suspended">[]
  > {
    const rows = await this.#database.all<
      Pick<Row, "online" | "lastSeen" | "warnings" | "conflict" | "suspended">
    >(
      sql`select online, last_seen as "lastSeen", warnings, identity_conflict as "conflict", suspended from devices`,
    );
    return rows.map((row) => ({
      online: row.online === 1,
      lastSeen: row.lastSeen,
      warnings: JSON.parse(row.warnings) as Warnings,
      conflict: conflictOf(row.conflict),
      suspended: row.suspended === 1,
    }));
  }

  async ids(): Promise<string[]> {
    return (
      await this.#database.all<{ device: string }>(sql`select device from devices order by device`)
    ).map((row) => row.device);
  }

  async count(): Promise<number> {
    return (await this.#database.get<{ count: number }>(sql`select count(*) as count from devices`))!.count;
  }

  /** What is needed to let a device in. */
  async credential(device: string): Promise<{ credentialSha256: string; suspended: boolean } | undefined> {
    const row = await this.#database.get<{ credentialSha256: string; suspended: number }>(
      sql`select credential_sha256 as "credentialSha256", suspended from devices where device = ${device}`,
    );
    return row && { credentialSha256: row.credentialSha256, suspended: row.suspended === 1 };
  }

  async setTags(device: string, tags: Tags): Promise<boolean> {
    return (
      (await this.#database.run(
        sql`update devices set tags = ${JSON.stringify(tags)} where device = ${device}`,
      )) === 1
    );
  }

  async setSuspended(device: string, suspended: boolean): Promise<boolean> {
    return (
      (await this.#database.run(
        sql`update devices set suspended = ${suspended} where device = ${device}`,
      )) === 1
    );
  }

  /** Devices that report this package as running, in any of their lanes. */
  async runningOn(model: string, version: number): Promise<number> {
    const row = await this.#database.get<{ count: number }>(
      sql`select count(*) as count from devices where (running_model = ${model} and running_version = ${version})
        or lanes like ${inLane(model, version)} escape '\\'`,
    );
    return row!.count;
  }

  /** After a start nobody is connected; presence says who comes back. */
  async setAllOffline(): Promise<void> {
    await this.#database.run(sql`update devices set online = 0 where online = 1`);
  }

  async touch(tx: Database, device: string, time: number): Promise<void> {
    await tx.run(sql`update devices set last_seen = ${time} where device = ${device}`);
  }

  /** A presence of an older boot, delayed by the network, changes nothing. */
  async setPresence(tx: Database, device: string, boot: number, online: boolean): Promise<boolean> {
    const changed = await tx.run(sql`update devices set online = ${online}, presence_boot = ${boot}
      where device = ${device} and presence_boot <= ${boot}`);
    return changed === 1;
  }

  /** Who was last heard under the identity of a device; undefined where there is none. */
  async agent(tx: Database, device: string): Promise<KnownAgent | undefined> {
    const row = await tx.get<{ boot: number; instance: string | null; conflict: string | null }>(
      sql`select presence_boot as "boot", presence_instance as "instance", identity_conflict as "conflict"
        from devices where device = ${device}`,
    );
    return row && { boot: Number(row.boot), instance: row.instance, conflict: conflictOf(row.conflict) };
  }

  async setAgent(tx: Database, device: string, { instance, conflict }: KnownAgent): Promise<void> {
    await tx.run(sql`update devices set presence_instance = ${instance},
      identity_conflict = ${conflict && JSON.stringify(conflict)} where device = ${device}`);
  }

  /** A state of an older boot, or older within its boot, changes nothing. */
  async setState(tx: Database, device: string, state: DeviceState): Promise<boolean> {
    const { running } = state;
    const changed =
      await tx.run(sql`update devices set state = ${JSON.stringify(state)}, state_boot = ${state.boot},
      state_time = ${state.time}, warnings = ${JSON.stringify(state.warnings)}, running_model = ${running?.model ?? null},
      running_version = ${running?.version ?? null}, running_package_sha256 = ${running?.packageSha256 ?? null},
      lanes = ${lanesOf(state)}, facts = ${JSON.stringify(state.facts)}, config_id = ${state.configId}
      where device = ${device} and (state_boot < ${state.boot} or (state_boot = ${state.boot} and state_time <= ${state.time})
        or state_time is null)`);
    return changed === 1;
  }

  /** What a desired state is made from, of many devices at once. */
  async briefs(tx: Database, devices: readonly string[]): Promise<Map<string, DeviceBrief>> {
    const briefs = new Map<string, DeviceBrief>();
    for (let at = 0; at < devices.length; at += DEVICES_PER_QUERY) {
      const ids = devices.slice(at, at + DEVICES_PER_QUERY).map((device) => sql`${device}`);
      const rows = await tx.all<{ device: string; tags: string; suspended: number; lanes: string | null }>(
        sql`select device, tags, suspended, lanes from devices where device in (${sql.join(ids, sql`, `)})`,
      );
      for (const { device, tags, suspended, lanes } of rows) {
        briefs.set(device, {
          tags: JSON.parse(tags) as Tags,
          suspended: suspended === 1,
          lanes: lanes === null ? [] : (JSON.parse(lanes) as DeviceBrief["lanes"]),
        });
      }
    }
    return briefs;
  }

  async warnings(tx: Database, device: string): Promise<Warnings> {
    const row = await tx.get<{ warnings: string }>(
      sql`select warnings from devices where device = ${device}`,
    );
    return row ? (JSON.parse(row.warnings) as Warnings) : [];
  }

  async setWarnings(tx: Database, device: string, warnings: Warnings): Promise<void> {
    await tx.run(sql`update devices set warnings = ${JSON.stringify(warnings)} where device = ${device}`);
  }

  async putGroup(group: {
    group: string;
    devices: readonly string[] | null;
    selector: Tags | null;
  }): Promise<void> {
    const devices = group.devices && JSON.stringify(group.devices);
    const selector = group.selector && JSON.stringify(group.selector);
    await this.#database.run(sql`insert into device_groups (name, devices, selector) values (${group.group}, ${devices}, ${selector})
      on conflict (name) do update set devices = excluded.devices, selector = excluded.selector`);
  }

  async deleteGroup(group: string): Promise<boolean> {
    return (await this.#database.run(sql`delete from device_groups where name = ${group}`)) === 1;
  }

  async groups(
    tx: Database = this.#database,
  ): Promise<{ group: string; devices: string[] | null; selector: Tags | null }[]> {
    const rows = await tx.all<{ name: string; devices: string | null; selector: string | null }>(
      sql`select name, devices, selector from device_groups order by name`,
    );
    return rows.map((row) => ({
      group: row.name,
      devices: row.devices === null ? null : (JSON.parse(row.devices) as string[]),
      selector: row.selector === null ? null : (JSON.parse(row.selector) as Tags),
    }));
  }

  /** Ids and tags of every device, for selectors. */
  async tags(): Promise<{ device: string; tags: Tags }[]> {
    const rows = await this.#database.all<{ device: string; tags: string }>(
      sql`select device, tags from devices order by device`,
    );
    return rows.map((row) => ({ device: row.device, tags: JSON.parse(row.tags) as Tags }));
  }
}

/** A state written by an older server may lack what today's schema wants; it then counts as not reported yet. */
function record(row: Row): DeviceRecord {
  const state = row.state === null ? undefined : stateSchema.safeParse(JSON.parse(row.state));
  return {
    device: row.device,
    tags: JSON.parse(row.tags) as Tags,
    facts: JSON.parse(row.facts) as Facts,
    enrolled: row.enrolled,
    suspended: row.suspended === 1,
    online: row.online === 1,
    lastSeen: row.lastSeen,
    state: state?.success ? state.data : null,
    warnings: JSON.parse(row.warnings) as Warnings,
    conflict: conflictOf(row.conflict),
  };
}

function conflictOf(text: string | null): IdentityConflict | null {
  return text === null ? null : (JSON.parse(text) as IdentityConflict);
}

/** Pattern of what {@link lanesOf} writes for a lane that runs this version: SQLite and PostgreSQL share no JSON functions. */
function inLane(model: string, version: number): string {
  const name = JSON.stringify(model).replaceAll(/[\\%_]/g, (sign) => `\\${sign}`);
  return `%"running":{"model":${name},"version":${version},%`;
}

/** Of a device with several sources: which model each is for, and what it runs. */
function lanesOf({ lanes }: DeviceState): string | null {
  if (lanes.length < 2) return null;
  return JSON.stringify(
    lanes.map(({ name, model, running }) => ({
      name,
      model,
      running: running && {
        model: running.model,
        version: running.version,
        packageSha256: running.packageSha256,
      },
    })),
  );
}
