import type { Facts } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { FleetRecord } from "../domain/fleet.js";
import type { ReportedLane } from "../domain/lanes.js";
import type { PackageRef } from "../domain/rollout.js";
import type { Database } from "./database.js";

interface Row {
  device: string;
  tags: string;
  facts: string;
  suspended: number;
  online: number;
  lastSeen: number | null;
  model: string | null;
  version: number | null;
  packageSha256: string | null;
  lanes: string | null;
  configId: string | null;
}

const COLUMNS =
  sql.raw(`device, tags, facts, suspended, online, last_seen as "lastSeen", running_model as model,
  running_version as version, running_package_sha256 as "packageSha256", lanes, config_id as "configId"`);
/** Devices named in one statement, and in one page. */
const DEVICES_PER_QUERY = 500;
const KINDS_MAX = 10_000;

/** Devices as the rollout engine keeps them in memory: read once, then those that changed. */
export class FleetStore {
  readonly #database: Database;
  /** Devices of a kind share one record of facts. */
  readonly #facts = new Map<string, Facts>();

  constructor(database: Database) {
    this.#database = database;
  }

  async *all(): AsyncGenerator<FleetRecord[]> {
    let after = "";
    for (;;) {
      const page = await this.#read(sql`where device > ${after} order by device limit ${DEVICES_PER_QUERY}`);
      if (page.length > 0) yield page;
      if (page.length < DEVICES_PER_QUERY) return;
      after = page.at(-1)!.device;
    }
  }

  async these(devices: readonly string[]): Promise<FleetRecord[]> {
    const records: FleetRecord[] = [];
    for (let at = 0; at < devices.length; at += DEVICES_PER_QUERY) {
      const ids = devices.slice(at, at + DEVICES_PER_QUERY).map((device) => sql`${device}`);
      records.push(...(await this.#read(sql`where device in (${sql.join(ids, sql`, `)})`)));
    }
    return records;
  }

  async #read(where: SQL): Promise<FleetRecord[]> {
    const rows = await this.#database.all<Row>(sql`select ${COLUMNS} from devices ${where}`);
    return rows.map((row) => ({
      device: row.device,
      tags: JSON.parse(row.tags) as Record<string, string>,
      facts: this.#factsOf(row.facts),
      suspended: row.suspended === 1,
      online: row.online === 1,
      lastSeen: row.lastSeen ?? 0,
      running: firstOf(row),
      lanes: row.lanes === null ? [] : (JSON.parse(row.lanes) as ReportedLane<PackageRef>[]),
      configId: row.configId,
    }));
  }

  #factsOf(json: string): Facts {
    const known = this.#facts.get(json);
    if (known) return known;
    if (this.#facts.size >= KINDS_MAX) this.#facts.clear();
    const facts = JSON.parse(json) as Facts;
    this.#facts.set(json, facts);
    return facts;
  }
}

/** What the first lane runs. */
function firstOf({ model, version, packageSha256 }: Row): PackageRef | null {
  if (model === null || version === null || packageSha256 === null) return null;
  return { model, version, packageSha256 };
}
