import { z } from "zod";
import { MEDIA_TYPES, STRATA } from "../messages/sample.js";
import {
  countSchema,
  deviceIdSchema,
  labelSchema,
  modelNameSchema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { FAILURE_STATUSES } from "../states.js";

export const annotationSchema = z.object({
  annotation: z.string(),
  label: labelSchema,
  author: z.string(),
  created: timeSchema,
  /** False once a later one replaced it. */
  current: z.boolean(),
});
export type Annotation = z.output<typeof annotationSchema>;

/** A sample as a failure case: `wrong` says what is known. */
export const sampleViewSchema = z.object({
  sample: z.string(),
  device: deviceIdSchema,
  predictionId: z.string(),
  time: timeSchema,
  received: timeSchema,
  model: modelNameSchema,
  version: versionSchema,
  stratum: z.enum(STRATA),
  probability: z.number(),
  worth: z.number(),
  class: z.int(),
  label: z.string(),
  confidence: z.number(),
  signals: z.record(z.string(), z.number()),
  /** What a candidate in shadow answered to the same input; null where none looked at it. */
  shadow: z
    .object({
      deployment: z.string(),
      version: versionSchema,
      label: z.string(),
      confidence: z.number(),
      /** Distance of the two answers, 0..1: from 0.5 on the decision is another. */
      disagreement: z.number(),
    })
    .nullable(),
  mediaType: z.enum(MEDIA_TYPES),
  bytes: countSchema,
  payloadUrl: z.string(),
  status: z.enum(FAILURE_STATUSES),
  annotation: annotationSchema.nullable(),
  /** Truth from the application's feedback, where it arrived. */
  truth: z.string().nullable(),
  wrong: z.enum(["yes", "no", "unknown"]),
});
export type SampleView = z.output<typeof sampleViewSchema>;

export const sampleQuerySchema = z.object({
  model: modelNameSchema.optional(),
  version: z.coerce.number().pipe(versionSchema).optional(),
  device: deviceIdSchema.optional(),
  stratum: z.enum(STRATA).optional(),
  status: z.enum(FAILURE_STATUSES).optional(),
  labelled: z.enum(["yes", "no"]).optional(),
  wrong: z.enum(["yes", "no", "unknown"]).optional(),
  /** Where the candidate of this deployment, in shadow, decided otherwise; `any` for any deployment's. */
  shadow: z.string().min(1).max(64).optional(),
  after: z.coerce.number().pipe(timeSchema).optional(),
  before: z.coerce.number().pipe(timeSchema).optional(),
  order: z.enum(["worth", "newest"]).default("worth"),
  limit: z.coerce.number().int().min(1).max(500).default(100),
  cursor: z.string().max(200).optional(),
});
export type SampleQuery = z.output<typeof sampleQuerySchema>;

export const annotationRequestSchema = z.object({ label: labelSchema });
export const sampleStatusRequestSchema = z.object({ status: z.enum(FAILURE_STATUSES) });
