import { z } from "zod";
import { manifestSchema } from "../manifest/manifest.js";
import {
  countSchema,
  deviceClassSchema,
  labelSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { TRAINING_STATES } from "../states.js";
import { proportionSchema } from "./common.js";

export const modelVersionSchema = z.object({
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
  created: timeSchema,
  published: timeSchema,
  bytes: countSchema,
  manifest: manifestSchema,
  /** Devices that report this package as running. */
  runningOn: countSchema,
  /** Latest evaluation verdict: none yet, passed or failed. */
  evidence: z.enum(["none", "passed", "failed"]),
  /** Device classes that it is made for; null: any. */
  deviceClasses: z.array(deviceClassSchema).nullable(),
  /** `awaiting_signature`: the targets keys have not signed it yet, so no device installs it. */
  state: z.enum(["published", "awaiting_signature"]),
});
export type ModelVersion = z.output<typeof modelVersionSchema>;

export const modelSchema = z.object({
  model: modelNameSchema,
  task: z.string(),
  versions: z.array(modelVersionSchema),
});
export type Model = z.output<typeof modelSchema>;

export const datasetSchema = z.object({
  dataset: z.string(),
  name: z.string(),
  model: modelNameSchema,
  /** Which samples belong to it: labelled ones of this model that match. */
  query: z.object({
    labelled: z.boolean(),
    devices: z.array(z.string()).optional(),
    after: timeSchema.optional(),
    versions: z.array(versionSchema).optional(),
  }),
  created: timeSchema,
  sampleCount: countSchema,
});
export const snapshotSchema = z.object({
  /** SHA-256 over the sorted (sample, label) list: the same content is the same snapshot. */
  snapshot: sha256Schema,
  dataset: z.string(),
  created: timeSchema,
  sampleCount: countSchema,
  labels: z.record(labelSchema, countSchema),
});
export type Dataset = z.output<typeof datasetSchema>;
export type Snapshot = z.output<typeof snapshotSchema>;

export const trainingSettingsSchema = z.object({
  trainable: z.enum(["head", "last", "all"]).default("all"),
  steps: z.int().min(1).max(100_000).default(600),
  batch: z.int().min(1).max(512).default(32),
  rate: z.number().positive().max(1).default(0.001),
  /** Share of each batch drawn from the old training data, 0..0.9. */
  replayShare: z.number().min(0).max(0.9).default(0.5),
  /** Share of the snapshot kept out of training, for the evaluation of new data. */
  validationShare: z.number().min(0.05).max(0.5).default(0.2),
  seed: z.int().min(0).default(1),
});
export const trainingRunRequestSchema = z.object({
  model: modelNameSchema,
  baseVersion: versionSchema,
  snapshot: sha256Schema,
  settings: trainingSettingsSchema.prefault({}),
});
export const trainingRunSchema = z.object({
  run: z.string(),
  model: modelNameSchema,
  baseVersion: versionSchema,
  snapshot: sha256Schema,
  settings: trainingSettingsSchema,
  state: z.enum(TRAINING_STATES),
  created: timeSchema,
  started: timeSchema.nullable(),
  finished: timeSchema.nullable(),
  progress: z.object({
    step: countSchema,
    steps: countSchema,
    loss: z.number().nullable(),
    losses: z.array(z.number()),
    message: z.string(),
  }),
  candidate: versionSchema.nullable(),
  errorCode: z.string().nullable(),
  errorMessage: z.string().nullable(),
});
export type TrainingSettings = z.output<typeof trainingSettingsSchema>;
export type TrainingRun = z.output<typeof trainingRunSchema>;

/** One version on one set of labelled inputs. */
export const evaluationResultSchema = z.object({
  version: versionSchema,
  variant: z.string(),
  accuracy: proportionSchema,
  perClass: z.array(z.object({ label: labelSchema, recall: proportionSchema, precision: proportionSchema })),
  /** Rows are truth, columns the prediction, in the order of `labels`. */
  confusion: z.array(z.array(countSchema)),
});
export const evaluationSchema = z.object({
  evaluation: z.string(),
  model: modelNameSchema,
  run: z.string().nullable(),
  created: timeSchema,
  labels: z.array(labelSchema),
  base: versionSchema,
  candidate: versionSchema,
  slices: z.array(
    z.object({
      /** `field`: labelled samples kept out of training; `old`: the holdout that travels with the base version. */
      slice: z.string(),
      base: evaluationResultSchema,
      candidate: evaluationResultSchema,
      /** Inputs that only one of the two got right. */
      onlyBaseRight: countSchema,
      onlyCandidateRight: countSchema,
    }),
  ),
  verdict: z.enum(["passed", "failed"]),
  reasons: z.array(z.string()),
});
export type EvaluationResult = z.output<typeof evaluationResultSchema>;
export type Evaluation = z.output<typeof evaluationSchema>;
