import { z } from "zod";
import { LIMITS } from "../limits.js";
import { modelNameSchema, textSchema, versionSchema } from "../names.js";
import { furtherNodeNameSchema, nodeConditionSchema, nodeSourceSchema } from "./manifest.js";

/** A package folder, from the folder of the description. */
const folderSchema = z.string().min(1).max(4_096);

/** What a pipeline is made of: packages of plain models, and what each is fed with. */
export const pipelineSpecSchema = z.strictObject({
  model: modelNameSchema,
  version: versionSchema.default(1),
  description: textSchema.default(""),
  /** Where the parts' licences differ they are all named by default. */
  licence: z.string().min(1).max(64).optional(),
  root: folderSchema,
  nodes: z
    .array(
      z.strictObject({
        name: furtherNodeNameSchema,
        package: folderSchema,
        from: nodeSourceSchema,
        when: nodeConditionSchema.optional(),
      }),
    )
    .min(1)
    .max(LIMITS.pipelineNodesMax),
});
export type PipelineSpec = z.output<typeof pipelineSpecSchema>;
