import { DISAGREES_FROM, type ShadowEvent } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import { NOTHING_LABELLED, type ShadowLabelled, type ShadowStretch } from "../domain/shadow.js";
import type { Database, Migration } from "./database.js";

export const SHADOW_MIGRATION: Migration = {
  name: "0011_shadow",
  statements: (types) => [
    `create table shadow_counts (
      deployment text not null, from_time ${types.bigint} not null, to_time ${types.bigint} not null,
      against_version integer not null, against_sha256 text not null, frames ${types.bigint} not null,
      compared ${types.bigint} not null, skipped ${types.bigint} not null, failed ${types.bigint} not null,
      disagreements ${types.bigint} not null, candidate_mean_ms ${types.real} not null, active_mean_ms ${types.real} not null,
      cpu_share ${types.real} not null, class_flips text not null, received ${types.bigint} not null,
      primary key (deployment, from_time))`,
    "alter table samples add column shadow_deployment text",
    "alter table samples add column shadow_version integer",
    "alter table samples add column shadow_label text",
    `alter table samples add column shadow_confidence ${types.real}`,
    `alter table samples add column disagreement ${types.real}`,
    "create index samples_shadow on samples (shadow_deployment, disagreement)",
  ],
};

interface Row extends Omit<ShadowStretch, "against" | "classFlips"> {
  readonly deployment: string;
  readonly againstVersion: number;
  readonly againstSha256: string;
  readonly classFlips: string;
}

interface LabelledRow {
  readonly deployment: string;
  readonly activeRight: number;
  readonly candidateRight: number;
  readonly count: number;
}

export interface ShadowSampleCounts {
  readonly disagreements: number;
  readonly unlabelled: number;
}

const COLUMNS: SQL =
  sql.raw(`deployment, from_time as "from", to_time as "to", against_version as "againstVersion",
  against_sha256 as "againstSha256", frames, compared, skipped, failed, disagreements, candidate_mean_ms as "candidateMeanMs",
  active_mean_ms as "activeMeanMs", cpu_share as "cpuShare", class_flips as "classFlips"`);

/**
 * Disagreements that the deployment's own device sent, with what is known of their truth: a person's label outweighs the application's feedback,
 * which may say only right or wrong.
 */
const DISAGREEMENTS: SQL = sql.raw(`from samples s
  join deployments d on d.deployment = s.shadow_deployment and d.device = s.device
  left join annotations a on a.sample = s.sample and a.current = 1
  left join feedback f on f.device = s.device and f.boot = s.prediction_boot and f.n = s.n
  where s.disagreement >= ${DISAGREES_FROM}`);
const TRUTH = "coalesce(a.label, f.label, case when f.correct = 1 then s.label end)";
/** That the active version was wrong says of another answer nothing, of the same answer all. */
const RIGHT: SQL = sql.raw(`
  case when ${TRUTH} is not null then case when ${TRUTH} = s.label then 1 else 0 end
    when f.correct = 0 and s.shadow_label = s.label then 0 end as "activeRight",
  case when ${TRUTH} is not null then case when ${TRUTH} = s.shadow_label then 1 else 0 end
    when f.correct = 0 and s.shadow_label = s.label then 0 end as "candidateRight"`);

/** How candidates in shadow and active versions answered the same frames. */
export class ShadowStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Takes in what a device told, once or again, in any order: its counts only grow, so of two states of one shadow the one that has seen
   * more is the later one.
   */
  async put(tx: Database, event: ShadowEvent, received: number): Promise<void> {
    await tx.run(sql`insert into shadow_counts (deployment, from_time, to_time, against_version, against_sha256, frames, compared,
        skipped, failed, disagreements, candidate_mean_ms, active_mean_ms, cpu_share, class_flips, received)
      values (${event.deployment}, ${event.from}, ${event.to}, ${event.against.version}, ${event.against.packageSha256},
        ${event.frames}, ${event.compared}, ${event.skipped}, ${event.failed}, ${event.disagreements}, ${event.candidateMeanMs},
        ${event.activeMeanMs}, ${event.cpuShare}, ${JSON.stringify(event.classFlips)}, ${received})
      on conflict (deployment, from_time) do update set to_time = excluded.to_time, against_version = excluded.against_version,
        against_sha256 = excluded.against_sha256, frames = excluded.frames, compared = excluded.compared,
        skipped = excluded.skipped, failed = excluded.failed, disagreements = excluded.disagreements,
        candidate_mean_ms = excluded.candidate_mean_ms, active_mean_ms = excluded.active_mean_ms,
        cpu_share = excluded.cpu_share, class_flips = excluded.class_flips, received = excluded.received
      where excluded.frames + excluded.compared + excluded.skipped + excluded.failed
        >= shadow_counts.frames + shadow_counts.compared + shadow_counts.skipped + shadow_counts.failed`);
  }

  /** By deployment; those that never were in shadow are left out. */
  async stretches(deployments: readonly string[]): Promise<ReadonlyMap<string, readonly ShadowStretch[]>> {
    const found = new Map<string, ShadowStretch[]>();
    if (deployments.length === 0) return found;
    const rows = await this.#database.all<Row>(
      sql`select ${COLUMNS} from shadow_counts where deployment in (${list(deployments)}) order by from_time`,
    );
    for (const row of rows) {
      const stretches = found.get(row.deployment) ?? [];
      stretches.push(stretchOf(row));
      found.set(row.deployment, stretches);
    }
    return found;
  }

  /** Disagreements whose truth is known, by who was right; by deployment, those without any are left out. */
  async labelled(deployments: readonly string[]): Promise<ReadonlyMap<string, ShadowLabelled>> {
    const found = new Map<string, ShadowLabelled>();
    if (deployments.length === 0) return found;
    const rows =
      await this.#database.all<LabelledRow>(sql`select deployment, "activeRight", "candidateRight", count(*) as count
      from (select s.shadow_deployment as deployment, ${RIGHT} ${DISAGREEMENTS} and s.shadow_deployment in (${list(deployments)})) as judged
      where "activeRight" is not null and "candidateRight" is not null
      group by deployment, "activeRight", "candidateRight"`);
    for (const row of rows) {
      const before = found.get(row.deployment) ?? NOTHING_LABELLED;
      found.set(row.deployment, { ...before, [whoWasRight(row)]: row.count });
    }
    return found;
  }

  async samples(deployment: string): Promise<ShadowSampleCounts> {
    const row = await this.#database.get<ShadowSampleCounts>(sql`select count(*) as disagreements,
      coalesce(sum(case when a.annotation is null then 1 else 0 end), 0) as unlabelled
      ${DISAGREEMENTS} and s.shadow_deployment = ${deployment}`);
    return row!;
  }
}

function whoWasRight({ activeRight, candidateRight }: LabelledRow): keyof ShadowLabelled {
  if (activeRight === 1) return candidateRight === 1 ? "bothRight" : "onlyActiveRight";
  return candidateRight === 1 ? "onlyCandidateRight" : "bothWrong";
}

function stretchOf({ againstVersion, againstSha256, classFlips, ...row }: Row): ShadowStretch {
  const { deployment: _deployment, ...counts } = row;
  return {
    ...counts,
    against: { version: againstVersion, packageSha256: againstSha256 },
    classFlips: JSON.parse(classFlips) as ShadowStretch["classFlips"],
  };
}

function list(values: readonly string[]): SQL {
  return sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  );
}
