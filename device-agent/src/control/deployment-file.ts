import {
  assignmentSchema,
  DEPLOYMENT_STATES,
  modelNameSchema,
  sha256Schema,
  versionSchema,
  wireErrorSchema,
} from "@fieldloop/protocol";
import { z } from "zod";
import type { Durable, PersistPoint } from "./durable.js";

/** A lane's deployment file: what it runs, what it ran before, and how far the deployment in hand got. */
export const installedSchema = z.object({
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
});
export type Installed = z.output<typeof installedSchema>;

const fileSchema = z.object({
  schema: z.literal(1),
  /** The desired revision may never fall below, even where `desired.bin` was lost. */
  revisionFloor: z.int().min(0),
  /** The last version that was committed, and the one before it. Nothing that has not passed its probation ever gets here. */
  active: installedSchema.nullable(),
  previous: installedSchema.nullable(),
  deployment: z
    .object({
      assignment: assignmentSchema,
      state: z.enum(DEPLOYMENT_STATES),
      error: wireErrorSchema.optional(),
      /** Starts of the agent that found it in this state. */
      attempts: z.int().min(0),
      /** The state's work is done: its maintenance window is waited for. */
      ready: z.boolean().default(false),
    })
    .nullable(),
});
export type DeploymentFile = z.output<typeof fileSchema>;

const EMPTY: DeploymentFile = {
  schema: 1,
  revisionFloor: 0,
  active: null,
  previous: null,
  deployment: null,
};

/** `lost`: there was a file that did not parse. What it said of packages is not known then, and none may be removed for it. */
export async function loadDeploymentFile(
  path: string,
  durable: Durable,
  onCorrupt: (message: string) => void,
): Promise<{ readonly file: DeploymentFile; readonly lost: boolean }> {
  let lost = false;
  const file = await durable.readJson(path, fileSchema, (message) => {
    lost = true;
    onCorrupt(message);
  });
  return { file: file ?? EMPTY, lost };
}

export async function saveDeploymentFile(
  path: string,
  file: DeploymentFile,
  durable: Durable,
  point: PersistPoint,
): Promise<void> {
  await durable.writeJson(point, path, file);
}
