import { z } from "zod";
import {
  countSchema,
  deviceIdSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { DEPLOYMENT_STATES, ROLLOUT_STATES, WAVE_STATES } from "../states.js";
import { proportionSchema } from "./common.js";
import { gateSettingsSchema, gateVerdictSchema } from "./gates.js";

export const rolloutRequestSchema = z.object({
  model: modelNameSchema,
  version: versionSchema,
  /** A group's name, or a list of devices. */
  target: z.union([
    z.object({ group: z.string() }),
    z.object({ devices: z.array(deviceIdSchema).min(1).max(100_000) }),
  ]),
  /** Each wave as a share of the target in percent, cumulative, or as a count; the last must reach everyone. */
  waves: z
    .array(
      z.union([
        z.object({ percent: z.number().gt(0).max(100) }),
        z.object({ count: z.int().min(1) }),
        z.object({ devices: z.array(deviceIdSchema).min(1) }),
      ]),
    )
    .min(1)
    .max(50)
    .default([{ count: 1 }, { percent: 100 }]),
  gate: gateSettingsSchema.prefault({}),
  /** What happens when a gate fails. */
  onFailure: z.enum(["pause", "abort", "roll_back"]).default("pause"),
  probation: z
    .object({ seconds: countSchema, predictions: countSchema })
    .default({ seconds: 10, predictions: 50 }),
  offersPerMinute: z.int().min(1).max(100_000).default(6000),
  /** A version without a passing evaluation needs a written reason. */
  forceReason: z.string().min(10).max(500).optional(),
  start: z.boolean().default(true),
});
export type RolloutRequest = z.output<typeof rolloutRequestSchema>;

export const waveViewSchema = z.object({
  wave: z.int().min(1),
  state: z.enum(WAVE_STATES),
  devices: z.array(
    z.object({
      device: deviceIdSchema,
      state: z.enum([...DEPLOYMENT_STATES, "waiting", "silent"]),
      errorCode: z.string().nullable(),
      updated: timeSchema.nullable(),
    }),
  ),
  started: timeSchema.nullable(),
  finished: timeSchema.nullable(),
  gate: gateVerdictSchema.nullable(),
});
export type WaveView = z.output<typeof waveViewSchema>;

export const rolloutViewSchema = z.object({
  rollout: z.string(),
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
  /** What the devices ran before, where it is one version. */
  fromVersion: versionSchema.nullable(),
  state: z.enum(ROLLOUT_STATES),
  reason: z.string().nullable(),
  created: timeSchema,
  started: timeSchema.nullable(),
  finished: timeSchema.nullable(),
  request: rolloutRequestSchema,
  waves: z.array(waveViewSchema),
  accuracy: z.object({ before: proportionSchema, after: proportionSchema }),
});
export type RolloutView = z.output<typeof rolloutViewSchema>;

export const rolloutActionSchema = z.object({
  action: z.enum(["start", "approve", "pause", "resume", "abort", "roll_back"]),
  reason: z.string().max(500).default(""),
});
