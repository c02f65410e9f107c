import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";
import { newestFirst, type Behind } from "./newest.js";

const NEWEST = newestFirst("time", "entry");

export const AUDIT_MIGRATION: Migration = {
  name: "loop_0001_audit",
  statements: (types) => [
    `create table audit (entry text primary key, time ${types.bigint} not null, actor text not null, action text not null,
      subject text not null, detail text not null)`,
    "create index audit_subject on audit (subject, time)",
  ],
};

/** Who decided what, when: written in the same unit of work as the decision. */
export interface AuditEntry {
  readonly entry: string;
  readonly time: number;
  /** A person's or program's name, or `engine`. */
  readonly actor: string;
  /** `rollout.paused`, `version.published`, `sample.labelled`, … */
  readonly action: string;
  /** What it was done to: `rollout:rol_…`, `version:parts@2`. */
  readonly subject: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

export class AuditStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add({ entry, time, actor, action, subject, detail }: AuditEntry): Promise<void> {
    await this.#database.run(sql`insert into audit (entry, time, actor, action, subject, detail)
      values (${entry}, ${time}, ${actor}, ${action}, ${subject}, ${JSON.stringify(detail)})`);
  }

  /** Newest first, behind `before`. */
  async list(options: { subject?: string; before?: Behind; limit: number }): Promise<AuditEntry[]> {
    const subject = options.subject === undefined ? sql`` : sql` and subject = ${options.subject}`;
    const rows = await this.#database.all<Omit<AuditEntry, "detail"> & { detail: string }>(sql`
      select entry, time, actor, action, subject, detail from audit
      where ${NEWEST.behind(options.before)}${subject}
      order by ${NEWEST.order} limit ${options.limit}`);
    return rows.map((row) => ({ ...row, detail: JSON.parse(row.detail) as Record<string, unknown> }));
  }
}
