import { z } from "zod";
import { factsSchema, stateSchema } from "../messages/state.js";
import {
  countSchema,
  deviceIdSchema,
  labelSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { LIMITS } from "../limits.js";
import { directorKeySchema } from "../trust.js";
import { proportionSchema } from "./common.js";

export const tagsSchema = z
  .record(z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/), z.string().max(128))
  .refine((tags) => Object.keys(tags).length <= LIMITS.tagsMax);

export const enrolRequestSchema = z.object({
  /** One-time token, `fle_…`. */
  token: z.string().min(1).max(128),
  /** Wanted device id; the server makes one where absent. */
  device: deviceIdSchema.optional(),
  tags: tagsSchema.default({}),
  facts: factsSchema,
});
export const enrolResponseSchema = z.object({
  device: deviceIdSchema,
  /** `fld.{device}.{secret}`: the MQTT password (user name: the device id) and the bearer token for artifacts. */
  credential: z.string(),
  mqttUrl: z.string(),
  /** Keys that sign desired states and commands until the device has read the director target, hexadecimal. */
  fleetKeys: z.array(directorKeySchema).min(1).max(LIMITS.directorKeysMax),
  /** The newest trusted root metadata (TUF), as text: the device's factory root. */
  root: z.string().min(1).max(LIMITS.rootBytesMax),
});
export type EnrolRequest = z.output<typeof enrolRequestSchema>;
export type EnrolResponse = z.output<typeof enrolResponseSchema>;

export const enrolmentTokenRequestSchema = z.object({
  ttlSeconds: z
    .int()
    .min(1)
    .max(30 * 86_400)
    .default(900),
  uses: z.int().min(1).max(10_000).default(1),
});
export const enrolmentTokenSchema = z.object({ token: z.string(), expires: timeSchema, uses: z.int() });

export const deviceSummarySchema = z.object({
  device: deviceIdSchema,
  tags: tagsSchema,
  enrolled: timeSchema,
  suspended: z.boolean(),
  online: z.boolean(),
  /** Last time that anything came from it; null before the first message. */
  lastSeen: timeSchema.nullable(),
  running: z
    .object({
      model: modelNameSchema,
      version: versionSchema,
      packageSha256: sha256Schema,
      variant: z.string(),
      executionProvider: z.string(),
    })
    .nullable(),
  /** Of a device with several sources: what each lane runs, the first (as in `running`) included; empty where there is one. */
  lanes: z.array(
    z.object({
      name: z.string(),
      running: z.object({ model: modelNameSchema, version: versionSchema }).nullable(),
    }),
  ),
  wanted: z
    .object({ model: modelNameSchema, version: versionSchema, packageSha256: sha256Schema })
    .nullable(),
  /** Worst thing that is wrong now: `ok`, `warning`, `error`, `silent` (online never said or nothing heard for a while) or `offline`. */
  health: z.enum(["ok", "warning", "error", "silent", "offline"]),
  warnings: stateSchema.shape.warnings,
  predictionsTotal: countSchema,
  predictionsPerSecond: z.number(),
  meanConfidence: z.number().nullable(),
  /** From feedback joined to predictions over the last ten minutes. */
  accuracy: proportionSchema,
});
export type DeviceSummary = z.output<typeof deviceSummarySchema>;

export const deviceDetailSchema = deviceSummarySchema.extend({
  state: stateSchema.nullable(),
  desiredRevision: countSchema,
  deployments: z.array(
    z.object({
      deployment: z.string(),
      rollout: z.string().nullable(),
      model: modelNameSchema,
      version: versionSchema,
      state: z.string(),
      errorCode: z.string().nullable(),
      errorMessage: z.string().nullable(),
      updated: timeSchema,
    }),
  ),
});
export type DeviceDetail = z.output<typeof deviceDetailSchema>;

/** One bucket of a device's predictions over time; a plot draws these. */
export const seriesPointSchema = z.object({
  time: timeSchema,
  count: countSchema,
  meanConfidence: z.number().nullable(),
  meanLatencyMs: z.number().nullable(),
  /** Predictions per label. */
  classes: z.record(labelSchema, countSchema),
  accuracy: z.number().nullable(),
  feedbackCount: countSchema,
});
export type SeriesPoint = z.output<typeof seriesPointSchema>;

export const predictionViewSchema = z.object({
  id: z.string(),
  time: timeSchema,
  model: modelNameSchema,
  version: versionSchema,
  class: z.int(),
  label: z.string(),
  confidence: z.number(),
  latencyMs: z.number(),
  signals: z.record(z.string(), z.number()),
  /** Truth from feedback, where it arrived. */
  truth: z.string().nullable(),
});
export type PredictionView = z.output<typeof predictionViewSchema>;

export const groupSchema = z.object({
  group: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/),
  /** A static list, or every device whose tags match (`site=lyon`). */
  devices: z.array(deviceIdSchema).nullable(),
  selector: tagsSchema.nullable(),
});
export type Group = z.output<typeof groupSchema>;
