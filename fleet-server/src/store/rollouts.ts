import {
  FieldloopError,
  ROLLOUT_DEVICE_STATES,
  type DecidedBy,
  type ErrorCode,
  type GateVerdict,
  type HoldReason,
  type RolloutRequest,
  type RolloutState,
  type RolloutSubject,
  type WaveRequest,
} from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { JournalEntry } from "../domain/rollout-journal.js";
import {
  isInProgress,
  type Previous,
  type RolloutDevice,
  type RolloutRecord,
  type RolloutWave,
  type Watch,
} from "../domain/rollout.js";
import type { Database, Migration } from "./database.js";
import { newestFirst, type Behind } from "./newest.js";

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

/**
 * The engine's own form. Rollouts of before it cannot be gone on with (they lack targets, holds and attempts): their devices keep
 * what they run, and the audit log what was decided.
 */
export const ROLLOUT_ENGINE_MIGRATION: Migration = {
  name: "loop_0008_rollout_engine",
  statements: (types) => [
    "drop table rollout_devices",
    "drop table rollout_waves",
    "drop table rollouts",
    `create table rollouts (rollout text primary key, model text, subject text not null, request text not null, origin text,
      state text not null, reason text, created ${types.bigint} not null, created_by text not null, started ${types.bigint},
      finished ${types.bigint}, approved text, current integer not null default 0, superseded_by text, accuracy text,
      events integer not null default 0, revision integer not null)`,
    "create index rollouts_state on rollouts (state, current)",
    "create index rollouts_created on rollouts (created)",
    `create table rollout_waves (rollout text not null, wave integer not null, plan text, state text not null, started ${types.bigint},
      soak_started ${types.bigint}, watched_since ${types.bigint}, finished ${types.bigint}, verdict text, looks integer not null,
      next_look ${types.bigint}, approved text, forced text, primary key (rollout, wave))`,
    `create table rollout_devices (rollout text not null, device text not null, wave integer not null, position integer not null,
      control integer not null, joined integer not null, state text not null default 'waiting', hold_reason text, hold_detail text,
      attempt integer not null default 0, error_code text, error_message text, offered ${types.bigint}, updated ${types.bigint},
      retry_at ${types.bigint}, previous text, restore text not null default 'none', restore_offered ${types.bigint}, watch text,
      primary key (rollout, device))`,
    "create index rollout_devices_order on rollout_devices (rollout, position)",
    `create table rollout_verdicts (rollout text not null, wave integer not null, look integer not null, time ${types.bigint} not null,
      verdict text not null, primary key (rollout, wave, look))`,
    `create table rollout_events (rollout text not null, seq integer not null, time ${types.bigint} not null, data text not null,
      primary key (rollout, seq))`,
    `create table device_configs (device text primary key, config_id text not null, policy text not null)`,
    `create table configs (config_id text primary key, policy text not null, created ${types.bigint} not null)`,
    "alter table devices add column config_id text",
    `alter table rollups add column confidence_squares ${types.real} not null default 0`,
    `alter table rollups add column latency_squares ${types.real} not null default 0`,
  ],
};

/** The rollout that a device was left to, which the detail named in words alone. */
export const ROLLOUT_SUPERSEDER_MIGRATION: Migration = {
  name: "loop_0012_rollout_superseder",
  statements: () => [
    "alter table rollout_devices add column hold_by text",
    `update rollout_devices set hold_by = replace(replace(hold_detail, 'rollout ', ''), ' says what it has', '')
      where hold_reason = 'superseded'`,
  ],
};

/** Until here a token's name stood for the person. */
export const ROLLOUT_CREATOR_MIGRATION: Migration = {
  name: "loop_0011_rollout_creator",
  statements: () => [
    "alter table rollouts add column creator text",
    "update rollouts set creator = created_by",
  ],
};

/** Until here a device that did not return had no reason. */
export const ROLLOUT_RESTORE_MIGRATION: Migration = {
  name: "loop_0013_rollout_restore_detail",
  statements: () => [
    "alter table rollout_devices add column restore_detail text",
    `update rollout_devices set restore_detail = 'it had nothing before'
      where restore = 'impossible' and previous is null`,
  ],
};

export interface StoredRollout {
  readonly record: RolloutRecord;
  readonly waves: RolloutWave[];
}

export interface StoredEvent {
  readonly seq: number;
  readonly time: number;
  readonly entry: JournalEntry;
}

interface RolloutRow {
  rollout: string;
  subject: string;
  request: string;
  origin: string | null;
  state: RolloutRecord["state"];
  reason: string | null;
  created: number;
  createdBy: string;
  creator: string;
  started: number | null;
  finished: number | null;
  approved: string | null;
  current: number;
  supersededBy: string | null;
  revision: number;
}
type WaveRow = Omit<RolloutWave, "plan" | "verdict" | "approved" | "forced"> & {
  rollout: string;
  plan: string | null;
  verdict: string | null;
  approved: string | null;
  forced: string | null;
};
type DeviceRow = Omit<RolloutDevice, "control" | "joined" | "hold" | "previous" | "watch" | "word"> & {
  control: number;
  joined: number;
  holdReason: HoldReason | null;
  holdDetail: string | null;
  holdBy: string | null;
  previous: string | null;
  watch: string | null;
};

const rolloutColumns =
  sql.raw(`rollout, subject, request, origin, state, reason, created, created_by as "createdBy", creator, started,
  finished, approved, current, superseded_by as "supersededBy", revision`);
const waveColumns =
  sql.raw(`rollout, wave, plan, state, started, soak_started as "soakStarted", watched_since as "watchedSince", finished,
  verdict, looks, next_look as "nextLook", approved, forced`);
const deviceColumns = sql.raw(`device, wave, position, control, joined, state, hold_reason as "holdReason",
  hold_detail as "holdDetail", hold_by as "holdBy", attempt, error_code as "errorCode", error_message as "errorMessage", offered, updated,
  retry_at as "retryAt", previous, restore, restore_detail as "restoreDetail", restore_offered as "restoreOffered", watch`);

const IN_PROGRESS = sql.join(
  ROLLOUT_DEVICE_STATES.filter(isInProgress).map((state) => sql`${state}`),
  sql`, `,
);
const NEWEST = newestFirst("created", "rollout");

/** Devices written in one statement. */
const DEVICES_PER_INSERT = 200;

export class RolloutStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(
    record: RolloutRecord,
    waves: readonly RolloutWave[],
    devices: readonly RolloutDevice[],
  ): Promise<void> {
    const { subject } = record;
    const model = subject.kind === "package" ? subject.model : null;
    await this.#database.run(sql`insert into rollouts (rollout, model, subject, request, origin, state, reason, created, created_by, creator, revision)
      values (${record.rollout}, ${model}, ${JSON.stringify(subject)}, ${JSON.stringify(record.request)},
        ${record.from && JSON.stringify(record.from)}, ${record.state}, ${record.reason}, ${record.created}, ${record.createdBy},
        ${record.creator}, ${record.revision})`);
    for (const { wave, plan, state } of waves) {
      await this.#database.run(sql`insert into rollout_waves (rollout, wave, plan, state, looks)
        values (${record.rollout}, ${wave}, ${plan && JSON.stringify(plan)}, ${state}, 0)`);
    }
    await this.addDevices(record.rollout, devices);
  }

  /** Devices as they are planned: nothing has happened to them. */
  async addDevices(rollout: string, devices: readonly RolloutDevice[]): Promise<void> {
    for (let at = 0; at < devices.length; at += DEVICES_PER_INSERT) {
      const rows = devices
        .slice(at, at + DEVICES_PER_INSERT)
        .map(
          ({ device, wave, position, control, joined }) =>
            sql`(${rollout}, ${device}, ${wave}, ${position}, ${control ? 1 : 0}, ${joined ? 1 : 0})`,
        );
      await this.#database.run(
        sql`insert into rollout_devices (rollout, device, wave, position, control, joined) values ${sql.join(rows, sql`, `)}`,
      );
    }
  }

  async get(rollout: string): Promise<StoredRollout | undefined> {
    return (await this.#load(sql`where rollout = ${rollout}`))[0];
  }

  /** Newest first, behind `before`. */
  async list(options: {
    model?: string;
    state?: RolloutState;
    before?: Behind;
    limit: number;
  }): Promise<StoredRollout[]> {
    const model = options.model === undefined ? sql`` : sql` and model = ${options.model}`;
    const state = options.state === undefined ? sql`` : sql` and state = ${options.state}`;
    const { before, limit } = options;
    return this.#load(
      sql`where ${NEWEST.behind(before)}${model}${state} order by ${NEWEST.order} limit ${limit}`,
    );
  }

  /** What the engine has to work on after a start: everything that is not over, still serves its target, or has devices at it. */
  async listLive(): Promise<StoredRollout[]> {
    return this.#load(sql`where state in ('draft', 'awaiting_approval', 'scheduled', 'running', 'paused', 'rolling_back')
      or current = 1 or exists (select 1 from rollout_devices d where d.rollout = rollouts.rollout and (d.restore = 'offered'
        or (rollouts.state = 'succeeded' and d.restore = 'none' and d.state in (${IN_PROGRESS}))))
      order by created`);
  }

  /** Those that a rollout took the place of. */
  async supersededBy(rollout: string): Promise<StoredRollout[]> {
    return this.#load(sql`where superseded_by = ${rollout} and state = 'succeeded'`);
  }

  /** Those whose place was taken by a rollout that is off: the server died before they got it back. */
  async supersededInVain(): Promise<StoredRollout[]> {
    return this.#load(sql`where state = 'succeeded' and superseded_by in
      (select rollout from rollouts where state in ('aborted', 'rolled_back'))`);
  }

  /** In the order of the plan. */
  async devices(
    rollout: string,
    options: { wave?: number; after?: number; limit?: number } = {},
  ): Promise<RolloutDevice[]> {
    const wave = options.wave === undefined ? sql`` : sql` and wave = ${options.wave}`;
    const limit = options.limit === undefined ? sql`` : sql` limit ${options.limit}`;
    const rows = await this.#database.all<DeviceRow>(sql`select ${deviceColumns} from rollout_devices
      where rollout = ${rollout} and position > ${options.after ?? -1}${wave} order by position${limit}`);
    return rows.map(deviceOf);
  }

  /**
   * Writes the fields of a rollout.
   * @throws FieldloopError `precondition_failed` where another process saved it in between
   */
  async save(record: RolloutRecord, events: number): Promise<void> {
    const changed =
      await this.#database.run(sql`update rollouts set state = ${record.state}, reason = ${record.reason},
      started = ${record.started}, finished = ${record.finished}, approved = ${record.approved && JSON.stringify(record.approved)},
      current = ${record.current ? 1 : 0}, superseded_by = ${record.supersededBy}, events = ${events}, revision = ${record.revision + 1}
      where rollout = ${record.rollout} and revision = ${record.revision}`);
    if (changed !== 1)
      throw new FieldloopError(
        "precondition_failed",
        `Save rollout "${record.rollout}": it changed meanwhile`,
      );
  }

  async saveWave(rollout: string, wave: RolloutWave): Promise<void> {
    await this.#database.run(sql`update rollout_waves set state = ${wave.state}, started = ${wave.started},
      soak_started = ${wave.soakStarted}, watched_since = ${wave.watchedSince}, finished = ${wave.finished},
      verdict = ${wave.verdict && JSON.stringify(wave.verdict)}, looks = ${wave.looks}, next_look = ${wave.nextLook},
      approved = ${wave.approved && JSON.stringify(wave.approved)}, forced = ${wave.forced && JSON.stringify(wave.forced)}
      where rollout = ${rollout} and wave = ${wave.wave}`);
  }

  async saveDevice(rollout: string, one: RolloutDevice): Promise<void> {
    await this.#database.run(sql`update rollout_devices set wave = ${one.wave}, state = ${one.state},
      hold_reason = ${one.hold?.reason ?? null}, hold_detail = ${one.hold?.detail ?? null}, hold_by = ${one.hold?.by ?? null}, attempt = ${one.attempt},
      error_code = ${one.errorCode}, error_message = ${one.errorMessage}, offered = ${one.offered}, updated = ${one.updated},
      retry_at = ${one.retryAt}, previous = ${one.previous && JSON.stringify(one.previous)}, restore = ${one.restore},
      restore_detail = ${one.restoreDetail}, restore_offered = ${one.restoreOffered}, watch = ${one.watch && JSON.stringify(one.watch)}
      where rollout = ${rollout} and device = ${one.device}`);
  }

  async addVerdict(rollout: string, wave: number, look: number, verdict: GateVerdict): Promise<void> {
    await this.#database.run(sql`insert into rollout_verdicts (rollout, wave, look, time, verdict)
      values (${rollout}, ${wave}, ${look}, ${verdict.time}, ${JSON.stringify(verdict)})`);
  }

  /** Oldest first; `after` is `{wave}.{look}` of the last one read. */
  async verdicts(
    rollout: string,
    options: { wave?: number; after?: { wave: number; look: number }; limit: number },
  ): Promise<{ wave: number; look: number; verdict: GateVerdict }[]> {
    const wave = options.wave === undefined ? sql`` : sql` and wave = ${options.wave}`;
    const { after = { wave: 0, look: 0 } } = options;
    const rows = await this.#database.all<{
      wave: number;
      look: number;
      verdict: string;
    }>(sql`select wave, look, verdict
      from rollout_verdicts where rollout = ${rollout}${wave} and (wave > ${after.wave} or (wave = ${after.wave} and look > ${after.look}))
      order by wave, look limit ${options.limit}`);
    return rows.map((row) => ({ ...row, verdict: JSON.parse(row.verdict) as GateVerdict }));
  }

  async addEvent(rollout: string, event: StoredEvent): Promise<void> {
    await this.#database.run(sql`insert into rollout_events (rollout, seq, time, data)
      values (${rollout}, ${event.seq}, ${event.time}, ${JSON.stringify(event.entry)})`);
  }

  async events(rollout: string, after: number, limit: number): Promise<StoredEvent[]> {
    const rows = await this.#database.all<{
      seq: number;
      time: number;
      data: string;
    }>(sql`select seq, time, data
      from rollout_events where rollout = ${rollout} and seq > ${after} order by seq limit ${limit}`);
    return rows.map(({ seq, time, data }) => ({ seq, time, entry: JSON.parse(data) as JournalEntry }));
  }

  async lastEvent(rollout: string): Promise<number> {
    const row = await this.#database.get<{ events: number }>(
      sql`select events from rollouts where rollout = ${rollout}`,
    );
    return row?.events ?? 0;
  }

  async saveAccuracy(rollout: string, accuracy: object): Promise<void> {
    await this.#database.run(
      sql`update rollouts set accuracy = ${JSON.stringify(accuracy)} where rollout = ${rollout}`,
    );
  }

  async accuracy<Accuracy>(rollout: string): Promise<Accuracy | undefined> {
    const row = await this.#database.get<{ accuracy: string | null }>(
      sql`select accuracy from rollouts where rollout = ${rollout}`,
    );
    return row?.accuracy ? (JSON.parse(row.accuracy) as Accuracy) : undefined;
  }

  async #load(where: SQL): Promise<StoredRollout[]> {
    const rows = await this.#database.all<RolloutRow>(sql`select ${rolloutColumns} from rollouts ${where}`);
    if (rows.length === 0) return [];
    const ids = sql.join(
      rows.map(({ rollout }) => sql`${rollout}`),
      sql`, `,
    );
    const waves = await this.#database.all<WaveRow>(
      sql`select ${waveColumns} from rollout_waves where rollout in (${ids}) order by rollout, wave`,
    );
    return rows.map((row) => ({
      record: recordOf(row),
      waves: waves.filter(({ rollout }) => rollout === row.rollout).map(waveOf),
    }));
  }
}

function recordOf({ origin, ...row }: RolloutRow): RolloutRecord {
  return {
    ...row,
    subject: JSON.parse(row.subject) as RolloutSubject,
    request: JSON.parse(row.request) as RolloutRequest,
    from: parsed<NonNullable<RolloutRecord["from"]>>(origin),
    approved: parsed<DecidedBy>(row.approved),
    current: row.current === 1,
  };
}

function waveOf({ rollout: _rollout, ...row }: WaveRow): RolloutWave {
  return {
    ...row,
    plan: parsed<WaveRequest>(row.plan),
    verdict: parsed<GateVerdict>(row.verdict),
    approved: parsed<DecidedBy>(row.approved),
    forced: parsed<DecidedBy>(row.forced),
  };
}

function deviceOf({ holdReason, holdDetail, holdBy, ...row }: DeviceRow): RolloutDevice {
  return {
    ...row,
    control: row.control === 1,
    joined: row.joined === 1,
    hold:
      holdReason === null
        ? null
        : { reason: holdReason, detail: holdDetail ?? "", ...(holdBy === null ? {} : { by: holdBy }) },
    errorCode: row.errorCode satisfies ErrorCode | null,
    previous: parsed<Previous>(row.previous),
    watch: parsed<Watch>(row.watch),
    word: null,
  };
}

function parsed<Value>(json: string | null): Value | null {
  return json === null ? null : (JSON.parse(json) as Value);
}
