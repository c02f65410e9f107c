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

/** Thresholds of the gate after each wave. Silence counts as failure: a device that reports nothing has not succeeded. */
export const gateSettingsSchema = z.object({
  /** Failed, rolled-back, timed-out and silent devices of the wave, at most, 0..1. */
  failedShareMax: z.number().min(0).max(1).default(0),
  /** A device of the wave silent for longer counts as failed. */
  silenceSeconds: z.number().min(1).max(86_400).default(60),
  /** A wave not complete after this long fails. */
  waveTimeoutSeconds: z
    .number()
    .min(1)
    .max(7 * 86_400)
    .default(600),
  /** How long the wave is watched after its last device committed. */
  soakSeconds: z
    .number()
    .min(0)
    .max(7 * 86_400)
    .default(10),
  /** Predictions of the new version needed from each device before a verdict. */
  predictionsMin: countSchema.default(50),
  /** Accuracy from feedback may be lower than that of the version before on the same devices by at most this, 0..1. Null: not looked at. */
  accuracyDropMax: z.number().min(0).max(1).nullable().default(0.02),
  /** Mean latency over that of the version before, at most. */
  latencyRatioMax: z.number().positive().nullable().default(3),
});
export type GateSettings = z.output<typeof gateSettingsSchema>;

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

export const gateVerdictSchema = z.object({
  verdict: z.enum(["pass", "fail", "inconclusive"]),
  time: timeSchema,
  /** One line per test, with the numbers that decided. */
  tests: z.array(
    z.object({
      test: z.string(),
      verdict: z.enum(["pass", "fail", "inconclusive"]),
      value: z.number().nullable(),
      limit: z.number().nullable(),
      detail: z.string(),
    }),
  ),
});
export type GateVerdict = z.output<typeof gateVerdictSchema>;

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
