import type { DeploymentState } from "@fieldloop/protocol";
import { sql, type SQL } from "drizzle-orm";
import type { Database, Migration } from "./database.js";

export const DEPLOYMENTS_MIGRATION: Migration = {
  name: "0004_deployments",
  statements: (types) => [
    `create table deployments (
      deployment text primary key, device text not null, rollout text, model text not null, version integer not null,
      package_sha256 text not null, state text not null, error_code text, error_message text, measured text not null default '{}',
      created ${types.bigint} not null, updated ${types.bigint} not null)`,
    "create index deployments_device on deployments (device, created)",
    "create index deployments_rollout on deployments (rollout)",
  ],
};

/** What one device was asked to run and how far it got. */
export interface Deployment {
  readonly deployment: string;
  readonly device: string;
  readonly rollout: string | null;
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
  readonly state: DeploymentState;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  /** Numbers that the device measured on its way, by name. */
  readonly measured: Readonly<Record<string, number>>;
  readonly created: number;
  readonly updated: number;
}

export type NewDeployment = Pick<
  Deployment,
  "deployment" | "device" | "rollout" | "model" | "version" | "packageSha256"
>;

type Row = Omit<Deployment, "measured"> & { measured: string };

const COLUMNS: SQL = sql.raw(
  `deployment, device, rollout, model, version, package_sha256 as "packageSha256", state, error_code as "errorCode",
   error_message as "errorMessage", measured, created, updated`,
);

export class DeploymentStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws FieldloopError `already_exists` */
  async insert(tx: Database, deployment: NewDeployment, now: number): Promise<void> {
    await tx.run(sql`insert into deployments (deployment, device, rollout, model, version, package_sha256, state, created, updated)
      values (${deployment.deployment}, ${deployment.device}, ${deployment.rollout}, ${deployment.model}, ${deployment.version},
        ${deployment.packageSha256}, 'offered', ${now}, ${now})`);
  }

  async get(deployment: string, tx: Database = this.#database): Promise<Deployment | undefined> {
    const row = await tx.get<Row>(sql`select ${COLUMNS} from deployments where deployment = ${deployment}`);
    return row && record(row);
  }

  /** Newest first. */
  async ofDevice(device: string, limit = 20): Promise<Deployment[]> {
    const rows = await this.#database.all<Row>(
      sql`select ${COLUMNS} from deployments where device = ${device} order by created desc, deployment desc limit ${limit}`,
    );
    return rows.map(record);
  }

  async ofRollout(rollout: string): Promise<Deployment[]> {
    const rows = await this.#database.all<Row>(
      sql`select ${COLUMNS} from deployments where rollout = ${rollout} order by created, deployment`,
    );
    return rows.map(record);
  }

  async setState(
    tx: Database,
    deployment: string,
    change: {
      state: DeploymentState;
      errorCode?: string | null;
      errorMessage?: string | null;
      measured?: Readonly<Record<string, number>>;
    },
    now: number,
  ): Promise<boolean> {
    const changed =
      await tx.run(sql`update deployments set state = ${change.state}, error_code = ${change.errorCode ?? null},
      error_message = ${change.errorMessage ?? null}, measured = ${JSON.stringify(change.measured ?? {})}, updated = ${now}
      where deployment = ${deployment}`);
    return changed === 1;
  }
}

function record(row: Row): Deployment {
  return { ...row, measured: JSON.parse(row.measured) as Record<string, number> };
}
