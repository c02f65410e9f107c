import { sql } from "drizzle-orm";
import type { PackageRef } from "../domain/rollout.js";
import { runningWhere, type ReportedLane } from "../domain/lanes.js";
import type { Database } from "./database.js";

export interface ObservedDevice {
  readonly device: string;
  readonly lastSeen: number | null;
  /** What it reports as running where the model in question would go. */
  readonly running: PackageRef | null;
}

interface Row {
  device: string;
  lastSeen: number | null;
  model: string | null;
  version: number | null;
  packageSha256: string | null;
  lanes: string | null;
}

/** Devices named in one statement. */
const DEVICES_PER_QUERY = 500;

/** The little of many devices that a rollout looks at every second. */
export class ObservedDeviceStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Those that are known, by id, and what each runs in the lane for `model`. */
  async observe(devices: readonly string[], model: string): Promise<Map<string, ObservedDevice>> {
    const observed = new Map<string, ObservedDevice>();
    for (let at = 0; at < devices.length; at += DEVICES_PER_QUERY) {
      const ids = devices.slice(at, at + DEVICES_PER_QUERY).map((device) => sql`${device}`);
      const rows =
        await this.#database.all<Row>(sql`select device, last_seen as "lastSeen", running_model as model,
        running_version as version, running_package_sha256 as "packageSha256", lanes from devices
        where device in (${sql.join(ids, sql`, `)})`);
      for (const row of rows) {
        const { device, lastSeen } = row;
        const lanes = row.lanes === null ? [] : (JSON.parse(row.lanes) as ReportedLane<PackageRef>[]);
        observed.set(device, {
          device,
          lastSeen,
          running: runningWhere({ running: first(row), lanes }, model),
        });
      }
    }
    return observed;
  }
}

/** What the first lane runs. */
function first({ model, version, packageSha256 }: Row): PackageRef | null {
  if (model === null || version === null || packageSha256 === null) return null;
  return { model, version, packageSha256 };
}
