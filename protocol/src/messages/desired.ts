import { z } from "zod";
import {
  countSchema,
  deviceIdSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";

/** Statement type of {@link sign}. */
export const DESIRED_TYPE = "fieldloop.desired.v1";

/** One source of a device and what it runs; a device with one source has the lane `main`. */
export const laneNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/);
export const MAIN_LANE = "main";

/** The candidate sees the same frames beside the active version before it is activated; it ends after both. Nothing that it says is served. */
export const shadowTermsSchema = z.object({
  seconds: countSchema.max(90 * 86_400),
  predictions: countSchema.max(1_000_000_000),
  /** Share of the device's processor time that it may take, 0..1. */
  cpuShareMax: z.number().min(0).max(1),
});
export type ShadowTerms = z.output<typeof shadowTermsSchema>;

/**
 * When a version may be taken in, in the device's local time: from `start` on each of the days, for so many minutes. See
 * {@link windowState} for what that means where the clocks change.
 */
export const updateWindowSchema = z.object({
  /** 0 is Sunday; every day where there are none. */
  days: z.array(z.int().min(0).max(6)).max(7),
  start: z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/),
  minutes: z
    .int()
    .min(1)
    .max(7 * 1_440),
});
export type UpdateWindow = z.output<typeof updateWindowSchema>;

export const assignmentSchema = z.object({
  deployment: z.string().min(1).max(64),
  /** Which lane of the device it is for; the lanes are told in the reported state. */
  lane: laneNameSchema.default(MAIN_LANE),
  model: modelNameSchema,
  version: versionSchema,
  /** SHA-256 of manifest.json: the package's identity. */
  packageSha256: sha256Schema,
  manifestBytes: z.int().positive(),
  /** The new version is committed after both. */
  probation: z.object({ seconds: countSchema, predictions: countSchema }),
  /** Left out where there are none. */
  shadow: shadowTermsSchema.nullable().default(null),
  /** At any time where there is none. */
  window: updateWindowSchema.nullable().default(null),
  /** An offer that is not begun by then ends `timed_out`. */
  expires: timeSchema.nullable().default(null),
});
export type Assignment = z.output<typeof assignmentSchema>;

export const samplingPolicySchema = z.object({
  /** Bytes of samples a device may send in an hour. */
  bytesPerHour: countSchema,
  /** Share of frames taken by plain chance, 0..1. */
  randomShare: z.number().min(0).max(1),
  /** Frames worth less are never taken for worth, 0..1. */
  worthMin: z.number().min(0).max(1),
  /** Samples a minute taken for worth, at most. */
  worthPerMinute: z.number().min(0).max(6000),
});
export type SamplingPolicy = z.output<typeof samplingPolicySchema>;

/** What a device may take and send; none where it is null. */
export const bandwidthLimitsSchema = z.object({
  /** Of the files of packages. */
  downloadBytesPerSecond: z.int().min(1).nullable().default(null),
  /** Of everything: telemetry, samples and downloads, from one midnight (UTC) to the next. */
  bytesPerDay: z.int().min(1).nullable().default(null),
});
export type BandwidthLimits = z.output<typeof bandwidthLimitsSchema>;
/** Nothing is limited by the fleet. */
export const UNLIMITED: BandwidthLimits = { downloadBytesPerSecond: null, bytesPerDay: null };

/** `down/desired`: retained, and the payload of a signed envelope. Its revision only grows for one device. */
export const desiredSchema = z.object({
  device: deviceIdSchema,
  revision: z.int().min(1),
  issued: timeSchema,
  assignments: z.array(assignmentSchema).max(8),
  sampling: samplingPolicySchema,
  /** Seconds between two messages of predictions, and between two profiles. */
  predictionsIntervalSeconds: z.number().min(0.1).max(3600),
  profileIntervalSeconds: z.number().min(1).max(86_400),
  limits: bandwidthLimitsSchema.default(UNLIMITED),
  /** The configuration that was rolled out to the device; it says it back in its state once it has applied it. */
  configId: z.string().max(64).nullable().default(null),
});
export type Desired = z.output<typeof desiredSchema>;

/** `down/command`: one-shot, answered by a `command_result` event. Signed like the desired state, and stale after `expires`. */
export const COMMAND_TYPE = "fieldloop.command.v1";
export const commandSchema = z.object({
  command: z.string().min(1).max(64),
  device: deviceIdSchema,
  expires: timeSchema,
  action: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("capture"), count: z.int().min(1).max(100) }),
    z.object({ kind: z.literal("restart_host") }),
    z.object({ kind: z.literal("report_state") }),
    /** The version before, at once; the deployment that brought the present one ends `rolled_back`. */
    z.object({ kind: z.literal("return_previous"), lane: laneNameSchema.default(MAIN_LANE) }),
  ]),
});
export type Command = z.output<typeof commandSchema>;
