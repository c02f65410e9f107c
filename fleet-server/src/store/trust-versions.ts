import { sql } from "drizzle-orm";
import type { Database } from "./database.js";

/** A published version as its target tells it: newest evaluation, device classes, and why it was let through without one. */
export interface TrustedVersion {
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
  readonly manifestBytes: number;
  readonly deviceClasses: readonly string[] | null;
  readonly forceReason: string | null;
  readonly evaluation: string | null;
  readonly verdict: "passed" | "failed" | null;
}

export async function trustedVersions(database: Database): Promise<TrustedVersion[]> {
  const rows = await database.all<
    Omit<TrustedVersion, "deviceClasses"> & { deviceClasses: string | null }
  >(sql`
    select m.model, m.version, m.package_sha256 as "packageSha256", m.manifest_bytes as "manifestBytes",
      m.device_classes as "deviceClasses", m.force_reason as "forceReason", e.evaluation, e.verdict
    from model_versions m left join evaluations e on e.evaluation = (select n.evaluation from evaluations n
      where n.model = m.model and n.candidate = m.version order by n.created desc, n.evaluation desc limit 1)
    order by m.model, m.version`);
  return rows.map((row) => ({
    ...row,
    deviceClasses: row.deviceClasses === null ? null : (JSON.parse(row.deviceClasses) as string[]),
  }));
}
