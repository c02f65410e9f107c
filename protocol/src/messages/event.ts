import { z } from "zod";
import { ERROR_CODES, type ErrorCode } from "../errors.js";
import { LIMITS } from "../limits.js";
import {
  countSchema,
  labelSchema,
  modelNameSchema,
  sha256Schema,
  textSchema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { DEPLOYMENT_STATES } from "../states.js";
import { bootSchema, deliveryShape } from "./delivery.js";

export const errorCodeSchema = z.enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]]);
/** An error as it travels: the code decides, the message is for people. */
export const wireErrorSchema = z.object({ code: errorCodeSchema, message: textSchema });
export type WireError = z.output<typeof wireErrorSchema>;

export const SEVERITIES = ["info", "warning", "error"] as const;

const deploymentEventSchema = z.object({
  type: z.literal("deployment"),
  deployment: z.string().min(1).max(64),
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
  state: z.enum(DEPLOYMENT_STATES),
  error: wireErrorSchema.optional(),
  /** Measured by the device where the state has something to tell: bytes downloaded, self-test latency, swap gap. */
  measured: z.record(z.string().max(64), z.number()).default({}),
});
const warningEventSchema = z.object({
  type: z.literal("warning"),
  code: errorCodeSchema,
  severity: z.enum(SEVERITIES),
  message: textSchema,
  /** False when the trouble is over. */
  active: z.boolean(),
});
const crashEventSchema = z.object({
  type: z.literal("crash"),
  process: z.enum(["host", "control"]),
  reason: textSchema,
  model: modelNameSchema.optional(),
  version: versionSchema.optional(),
  frameSha256: sha256Schema.optional(),
});
/** What really happened, said by the application for earlier predictions: ground truth, or only right or wrong. */
const feedbackEventSchema = z.object({
  type: z.literal("feedback"),
  predictionBoot: bootSchema,
  items: z
    .array(z.object({ n: countSchema, label: labelSchema.optional(), correct: z.boolean().optional() }))
    .min(1)
    .max(LIMITS.feedbackItemsMax),
});
const commandResultSchema = z.object({
  type: z.literal("command_result"),
  command: z.string().min(1).max(64),
  error: wireErrorSchema.optional(),
});
const evictionEventSchema = z.object({
  type: z.literal("eviction"),
  stream: z.enum(["event", "profile", "predictions", "sample"]),
  records: countSchema,
  bytes: countSchema,
});
/**
 * How a candidate and the active version answered the same frames, from the begin of a shadow on (`from`) until now: every event replaces
 * the one before it. A deployment that begins its shadow anew (after a start of the agent) says so by another `from`.
 */
const shadowEventSchema = z.object({
  type: z.literal("shadow"),
  deployment: z.string().min(1).max(64),
  /** The candidate. */
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
  /** The active version. */
  against: z.object({ version: versionSchema, packageSha256: sha256Schema }),
  from: timeSchema,
  to: timeSchema,
  /** Predictions of the active version; they were compared, skipped, failed, or are in hand. */
  frames: countSchema,
  /** Answered by both. */
  compared: countSchema,
  /** Not shown to the candidate, or shown only to bring what it carries from frame to frame up to date. */
  skipped: countSchema,
  /** Shown, and the candidate could not answer. */
  failed: countSchema.default(0),
  /** Compared, and the decision was another. */
  disagreements: countSchema,
  /** Over the compared frames; 0 where there is none. */
  candidateMeanMs: z.number().min(0),
  activeMeanMs: z.number().min(0),
  /** Share of all cores' time that the candidate took, 0..1. */
  cpuShare: z.number().min(0).default(0),
  /** Label of the active version, that of the candidate, how often: the most frequent first. */
  classFlips: z.array(z.tuple([labelSchema, labelSchema, countSchema])).max(LIMITS.shadowFlipsMax),
});
export type ShadowEvent = z.output<typeof shadowEventSchema>;

export const eventDataSchema = z.discriminatedUnion("type", [
  deploymentEventSchema,
  warningEventSchema,
  crashEventSchema,
  feedbackEventSchema,
  commandResultSchema,
  evictionEventSchema,
  shadowEventSchema,
]);
export type EventData = z.output<typeof eventDataSchema>;

export const eventSchema = z.object({ ...deliveryShape, time: timeSchema, data: eventDataSchema });
export type EventMessage = z.output<typeof eventSchema>;
