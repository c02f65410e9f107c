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

export const eventDataSchema = z.discriminatedUnion("type", [
  deploymentEventSchema,
  warningEventSchema,
  crashEventSchema,
  feedbackEventSchema,
  commandResultSchema,
  evictionEventSchema,
]);
export type EventData = z.output<typeof eventDataSchema>;

export const eventSchema = z.object({ ...deliveryShape, time: timeSchema, data: eventDataSchema });
export type EventMessage = z.output<typeof eventSchema>;
