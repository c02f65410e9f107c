import {
  assignmentSchema,
  DEPLOYMENT_STATES,
  modelNameSchema,
  sha256Schema,
  versionSchema,
  wireErrorSchema,
} from "@fieldloop/protocol";
import { z } from "zod";
import { readJsonFile, writeJsonFile } from "./files.js";

/** A lane's deployment file: what it runs, what it ran before, and how far the deployment in hand got. */
export const installedSchema = z.object({
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
});
export type Installed = z.output<typeof installedSchema>;

const storedAssignmentSchema = assignmentSchema.extend({
  /** Base64: JSON has no bytes. */
  statement: z.base64().max(2048),
});

const fileSchema = z.object({
  schema: z.literal(1),
  /** The desired revision may never fall below, even where `desired.bin` was lost. */
  revisionFloor: z.int().min(0),
  active: installedSchema.nullable(),
  previous: installedSchema.nullable(),
  deployment: z
    .object({
      assignment: storedAssignmentSchema,
      state: z.enum(DEPLOYMENT_STATES),
      error: wireErrorSchema.optional(),
      /** Starts of the agent that found it activating, or in probation. */
      attempts: z.int().min(0),
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

export async function loadDeploymentFile(
  path: string,
  onCorrupt: (message: string) => void,
): Promise<DeploymentFile> {
  return (await readJsonFile(path, fileSchema, onCorrupt)) ?? EMPTY;
}

export async function saveDeploymentFile(path: string, file: DeploymentFile): Promise<void> {
  await writeJsonFile(path, file);
}
