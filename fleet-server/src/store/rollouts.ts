import { FieldloopError, type GateVerdict, type RolloutRequest } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { PackageRef, Rollout, RolloutDevice, RolloutWave } from "../domain/rollout.js";
import type { Database, Migration } from "./database.js";

export const ROLLOUTS_MIGRATION: Migration = {
  name: "loop_0003_rollouts",
  statements: (types) => [
    `create table rollouts (rollout text primary key, model text not null, version integer not null, package_sha256 text not null,
      from_version integer, state text not null, reason text, created ${types.bigint} not null, created_by text not null,
      started ${types.bigint}, finished ${types.bigint}, request text not null, revision integer not null)`,
    "create index rollouts_state on rollouts (state)",
    "create index rollouts_created on rollouts (created)",
    `create table rollout_waves (rollout text not null, wave integer not null, state text not null, started ${types.bigint},
      soak_started ${types.bigint}, watched_since ${types.bigint}, finished ${types.bigint}, verdict text, primary key (rollout, wave))`,
    `create table rollout_devices (rollout text not null, device text not null, wave integer not null, position integer not null,
      state text not null, error_code text, error_message text, offered ${types.bigint}, updated ${types.bigint}, previous text,
      restore text not null, restore_offered ${types.bigint}, assigned text not null, primary key (rollout, device))`,
    "create index rollout_devices_open on rollout_devices (assigned, restore)",
  ],
};

/** A rollout with what only people ask for, and its revision: each save raises it by one. */
export interface StoredRollout extends Rollout {
  readonly fromVersion: number | null;
  readonly created: number;
  readonly createdBy: string;
  readonly request: RolloutRequest;
  readonly revision: number;
}

/** What was decided for a device but not yet written into its desired state. */
export interface OpenAssignment {
  readonly device: string;
  readonly purpose: "offer" | "restore";
  /** For a restore: the version to go back to. */
  readonly previous: PackageRef | null;
}

interface RolloutRow
  extends Omit<StoredRollout, "waves" | "devices" | "request" | "gate" | "onFailure" | "offersPerMinute"> {
  request: string;
}
type WaveRow = Omit<RolloutWave, "verdict"> & { rollout: string; verdict: string | null };
type DeviceRow = Omit<RolloutDevice, "previous"> & { rollout: string; previous: string | null };

const OPEN_STATES = sql.raw(
  `('draft', 'awaiting_approval', 'scheduled', 'running', 'paused', 'rolling_back')`,
);
const rolloutColumns =
  sql.raw(`rollout, model, version, package_sha256 as "packageSha256", from_version as "fromVersion", state,
  reason, created, created_by as "createdBy", started, finished, request, revision`);
const waveColumns =
  sql.raw(`rollout, wave, state, started, soak_started as "soakStarted", watched_since as "watchedSince",
  finished, verdict`);
const deviceColumns =
  sql.raw(`rollout, device, wave, state, error_code as "errorCode", error_message as "errorMessage", offered,
  updated, previous, restore, restore_offered as "restoreOffered"`);

export class RolloutStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(rollout: StoredRollout): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.run(sql`insert into rollouts (rollout, model, version, package_sha256, from_version, state, reason, created,
          created_by, started, finished, request, revision)
        values (${rollout.rollout}, ${rollout.model}, ${rollout.version}, ${rollout.packageSha256}, ${rollout.fromVersion},
          ${rollout.state}, ${rollout.reason}, ${rollout.created}, ${rollout.createdBy}, ${rollout.started}, ${rollout.finished},
          ${JSON.stringify(rollout.request)}, ${rollout.revision})`);
      for (const wave of rollout.waves) await insertWave(tx, rollout.rollout, wave);
      for (const [position, device] of rollout.devices.entries())
        await insertDevice(tx, rollout.rollout, device, position);
    });
  }

  async get(rollout: string): Promise<StoredRollout | undefined> {
    return (await this.#load(sql`where rollout = ${rollout}`))[0];
  }

  /** Newest first. */
  async list(options: { model?: string; before?: number; limit: number }): Promise<StoredRollout[]> {
    const model = options.model === undefined ? sql`` : sql` and model = ${options.model}`;
    const before = options.before ?? Number.MAX_SAFE_INTEGER;
    return this.#load(sql`where created < ${before}${model} order by created desc limit ${options.limit}`);
  }

  /** Those that the engine steps, and those that hold devices: everything not finished. */
  async listOpen(): Promise<StoredRollout[]> {
    return this.#load(sql`where state in ${OPEN_STATES} order by created`);
  }

  /** Rollouts that still have an offer or restore to carry out, finished ones too. */
  async withOpenAssignments(): Promise<string[]> {
    const rows = await this.#database.all<{ rollout: string }>(
      sql`select distinct rollout from rollout_devices where ${OPEN_ASSIGNMENT}`,
    );
    return rows.map(({ rollout }) => rollout);
  }

  /**
   * Writes what changed from `before` to `after`, which must be a later form of the same rollout.
   * @throws FieldloopError `precondition_failed` where another process saved it in between
   */
  async save(before: StoredRollout, after: Rollout): Promise<StoredRollout> {
    const revision = before.revision + 1;
    await this.#database.transaction(async (tx) => {
      const changed = await tx.run(sql`update rollouts set state = ${after.state}, reason = ${after.reason},
        started = ${after.started}, finished = ${after.finished}, revision = ${revision}
        where rollout = ${before.rollout} and revision = ${before.revision}`);
      if (changed !== 1) {
        throw new FieldloopError(
          "precondition_failed",
          `Save rollout "${before.rollout}": it changed meanwhile`,
        );
      }
      for (const [at, wave] of after.waves.entries()) {
        if (wave !== before.waves[at]) await updateWave(tx, before.rollout, wave);
      }
      for (const [at, device] of after.devices.entries()) {
        if (device !== before.devices[at]) await updateDevice(tx, before.rollout, device);
      }
    });
    return { ...before, ...after, revision };
  }

  /** What was decided and stored, but may not have reached the desired state: carried out again after a restart. */
  async openAssignments(rollout: string): Promise<OpenAssignment[]> {
    const rows = await this.#database.all<{ device: string; restore: string; previous: string | null }>(
      sql`select device, restore, previous from rollout_devices where rollout = ${rollout} and ${OPEN_ASSIGNMENT} order by position`,
    );
    return rows.map(({ device, restore, previous }) => ({
      device,
      purpose: restore === "none" ? "offer" : "restore",
      previous: parsePackage(previous),
    }));
  }

  async setAssigned(rollout: string, device: string, purpose: "offer" | "restore"): Promise<void> {
    await this.#database.run(
      sql`update rollout_devices set assigned = ${purpose} where rollout = ${rollout} and device = ${device}`,
    );
  }

  async #load(where: SQL): Promise<StoredRollout[]> {
    const rows = await this.#database.all<RolloutRow>(sql`select ${rolloutColumns} from rollouts ${where}`);
    if (rows.length === 0) return [];
    const ids = sql.join(
      rows.map(({ rollout }) => sql`${rollout}`),
      sql`, `,
    );
    const [waves, devices] = [
      await this.#database.all<WaveRow>(
        sql`select ${waveColumns} from rollout_waves where rollout in (${ids}) order by rollout, wave`,
      ),
      await this.#database.all<DeviceRow>(
        sql`select ${deviceColumns} from rollout_devices where rollout in (${ids}) order by rollout, position`,
      ),
    ];
    const wavesOf = groupBy(waves);
    const devicesOf = groupBy(devices);
    return rows.map((row) => fromRow(row, wavesOf.get(row.rollout) ?? [], devicesOf.get(row.rollout) ?? []));
  }
}

/** Decided and not yet in the device's desired state: an offer (also of what it runs already, so that it is wanted too), or a restore. */
const OPEN_ASSIGNMENT = sql.raw(`((restore = 'none' and offered is not null and assigned = 'none')
  or (restore = 'offered' and assigned <> 'restore'))`);

function groupBy<Row extends { rollout: string }>(rows: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const group = groups.get(row.rollout);
    if (group) group.push(row);
    else groups.set(row.rollout, [row]);
  }
  return groups;
}

function fromRow(row: RolloutRow, waves: readonly WaveRow[], devices: readonly DeviceRow[]): StoredRollout {
  const request = JSON.parse(row.request) as RolloutRequest;
  return {
    ...row,
    request,
    gate: request.gate,
    onFailure: request.onFailure,
    offersPerMinute: request.offersPerMinute,
    waves: waves.map(({ rollout: _rollout, verdict, ...wave }) => ({
      ...wave,
      verdict: verdict === null ? null : (JSON.parse(verdict) as GateVerdict),
    })),
    devices: devices.map(({ rollout: _rollout, previous, ...device }) => ({
      ...device,
      previous: parsePackage(previous),
    })),
  };
}

function parsePackage(json: string | null): PackageRef | null {
  return json === null ? null : (JSON.parse(json) as PackageRef);
}

async function insertWave(tx: Database, rollout: string, wave: RolloutWave): Promise<void> {
  await tx.run(sql`insert into rollout_waves (rollout, wave, state, started, soak_started, watched_since, finished, verdict)
    values (${rollout}, ${wave.wave}, ${wave.state}, ${wave.started}, ${wave.soakStarted}, ${wave.watchedSince}, ${wave.finished},
      ${wave.verdict && JSON.stringify(wave.verdict)})`);
}

async function updateWave(tx: Database, rollout: string, wave: RolloutWave): Promise<void> {
  await tx.run(sql`update rollout_waves set state = ${wave.state}, started = ${wave.started}, soak_started = ${wave.soakStarted},
    watched_since = ${wave.watchedSince}, finished = ${wave.finished}, verdict = ${wave.verdict && JSON.stringify(wave.verdict)}
    where rollout = ${rollout} and wave = ${wave.wave}`);
}

async function insertDevice(
  tx: Database,
  rollout: string,
  device: RolloutDevice,
  position: number,
): Promise<void> {
  await tx.run(sql`insert into rollout_devices (rollout, device, wave, position, state, error_code, error_message, offered, updated,
      previous, restore, restore_offered, assigned)
    values (${rollout}, ${device.device}, ${device.wave}, ${position}, ${device.state}, ${device.errorCode}, ${device.errorMessage},
      ${device.offered}, ${device.updated}, ${device.previous && JSON.stringify(device.previous)}, ${device.restore},
      ${device.restoreOffered}, 'none')`);
}

async function updateDevice(tx: Database, rollout: string, device: RolloutDevice): Promise<void> {
  await tx.run(sql`update rollout_devices set state = ${device.state}, error_code = ${device.errorCode},
    error_message = ${device.errorMessage}, offered = ${device.offered}, updated = ${device.updated},
    previous = ${device.previous && JSON.stringify(device.previous)}, restore = ${device.restore},
    restore_offered = ${device.restoreOffered} where rollout = ${rollout} and device = ${device.device}`);
}
