import { z } from "zod";
import {
  countSchema,
  deviceIdSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { HOLD_REASONS, ROLLOUT_DEVICE_STATES, ROLLOUT_STATES, WAVE_STATES } from "../states.js";
import { proportionSchema } from "./common.js";
import { gateVerdictSchema } from "./gates.js";
import { devicePolicyChangeSchema } from "./policies.js";
import { rolloutRequestSchema, waveRequestSchema } from "./rollouts.js";

/** What a rollout puts on devices, with the identity by which a device proves that it has it. */
export const rolloutSubjectSchema = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("package"),
    model: modelNameSchema,
    version: versionSchema,
    packageSha256: sha256Schema,
  }),
  z.object({ kind: z.literal("config"), configId: z.string(), policy: devicePolicyChangeSchema }),
]);
export type RolloutSubject = z.output<typeof rolloutSubjectSchema>;

/** Where a number of devices are; the seven groups leave none out. */
export const deviceCountsSchema = z.object({
  total: countSchema,
  /** Not asked yet; `holds` says why. */
  waiting: countSchema,
  /** Asked and on its way. */
  updating: countSchema,
  /** Proven by the device itself to run it. */
  active: countSchema,
  /** Rejected, failed, timed out or rolled back. */
  failed: countSchema,
  /** Its offer was withdrawn while it was on its way: the rollout was aborted or taken back. */
  cancelled: countSchema,
  /** Asked, and not heard of since. */
  silent: countSchema,
  /** Left out for good: left the target, or belongs to a rollout that goes first. */
  skipped: countSchema,
  /** Of the waiting ones, by reason. */
  holds: z.partialRecord(z.enum(HOLD_REASONS), countSchema),
  /** How far a roll-back is: asked to return, and proven back. */
  restoring: countSchema,
  restored: countSchema,
});
export type RolloutDeviceCounts = z.output<typeof deviceCountsSchema>;

/** A person's say, kept with the rollout. */
export const decidedBySchema = z.object({ by: z.string(), time: timeSchema, reason: z.string() });
export type DecidedBy = z.output<typeof decidedBySchema>;

export const waveViewSchema = z.object({
  wave: z.int().min(1),
  name: z.string(),
  /** Null for the control group's own wave, which comes last. */
  plan: waveRequestSchema.nullable(),
  state: z.enum(WAVE_STATES),
  counts: deviceCountsSchema,
  /** Null where nobody needs to let it begin; `given` is null until somebody has. */
  approval: z.object({ given: decidedBySchema.nullable() }).nullable(),
  /** Who let it pass in spite of its gate. */
  forced: decidedBySchema.nullable(),
  started: timeSchema.nullable(),
  soakStarted: timeSchema.nullable(),
  /** No verdict before this time; null before the soak. */
  soakEnds: timeSchema.nullable(),
  finished: timeSchema.nullable(),
  /** Its latest verdict; all of them: `GET /api/v1/rollouts/{rollout}/verdicts`. */
  gate: gateVerdictSchema.nullable(),
  /** How often its gate was judged. */
  looks: countSchema,
});
export type WaveView = z.output<typeof waveViewSchema>;

export const rolloutViewSchema = z.object({
  rollout: z.string(),
  name: z.string(),
  /** `parts@7`, or `config cfg_…`. */
  title: z.string(),
  subject: rolloutSubjectSchema,
  /** What the devices had before, where it is the same for all: a version, or the id of a configuration. */
  from: z.object({ version: versionSchema.nullable(), configId: z.string().nullable() }).nullable(),
  state: z.enum(ROLLOUT_STATES),
  /** Why it is in this state. */
  reason: z.string().nullable(),
  /** What it waits for now, in words (an approval, a time, devices to come online); null where it waits for nothing. */
  waitsFor: z.string().nullable(),
  created: timeSchema,
  createdBy: z.string(),
  started: timeSchema.nullable(),
  finished: timeSchema.nullable(),
  /** Null where none is needed; `given` is null until somebody has. */
  approval: z.object({ given: decidedBySchema.nullable() }).nullable(),
  request: rolloutRequestSchema,
  counts: deviceCountsSchema,
  waves: z.array(waveViewSchema),
  /** Devices held back for comparison. */
  controlCount: countSchema,
  /** It says what its target has from now on: devices that join, return or were held up get it too. */
  current: z.boolean(),
  /** The newer rollout that took its place. */
  supersededBy: z.string().nullable(),
  /** Newer rollouts that took devices of it, most first: such devices are `skipped` and say nothing for or against it. */
  superseders: z.array(z.object({ rollout: z.string(), title: z.string(), devices: z.int().min(1) })),
  /** From feedback on the devices of this rollout. */
  accuracy: z.object({ before: proportionSchema, after: proportionSchema }),
  /** Grows with every change. */
  revision: countSchema,
});
export type RolloutView = z.output<typeof rolloutViewSchema>;

/** One device of a rollout; pages of `GET /api/v1/rollouts/{rollout}/devices`. */
export const rolloutDeviceViewSchema = z.object({
  device: deviceIdSchema,
  wave: z.int().min(1),
  /** Held back for comparison until the last wave. */
  control: z.boolean(),
  /** Came into the target after the rollout was planned. */
  joined: z.boolean(),
  state: z.enum(ROLLOUT_DEVICE_STATES),
  /** Why it waits or was skipped. */
  hold: z.object({ reason: z.enum(HOLD_REASONS), detail: z.string() }).nullable(),
  /** 1 for the first offer. */
  attempt: countSchema,
  deployment: z.string().nullable(),
  errorCode: z.string().nullable(),
  errorMessage: z.string().nullable(),
  offered: timeSchema.nullable(),
  updated: timeSchema.nullable(),
  /** What it had when it was asked: where a roll-back leads. */
  previous: z
    .object({
      model: modelNameSchema.nullable(),
      version: versionSchema.nullable(),
      packageSha256: sha256Schema.nullable(),
      configId: z.string().nullable(),
    })
    .nullable(),
  restore: z.enum(["none", "offered", "done", "silent", "impossible"]),
  /** Why it is silent or impossible; null for the others. */
  restoreDetail: z.string().nullable(),
});
export type RolloutDeviceView = z.output<typeof rolloutDeviceViewSchema>;

/** A verdict of a gate as it is kept for ever; pages of `GET /api/v1/rollouts/{rollout}/verdicts`. */
export const rolloutVerdictSchema = z.object({
  rollout: z.string(),
  wave: z.int().min(1),
  /** 1 for the wave's first. */
  look: z.int().min(1),
  verdict: gateVerdictSchema,
});
export type RolloutVerdict = z.output<typeof rolloutVerdictSchema>;

/**
 * One entry of a rollout's history, and what `GET /api/v1/rollouts/{rollout}/events` streams (`event:` is the type, `id:` the
 * number, `data:` this as JSON). `progress` comes between them, without a number: counts of now, nothing to catch up on.
 */
export const rolloutEventSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("rollout"),
    seq: countSchema,
    time: timeSchema,
    actor: z.string(),
    state: z.enum(ROLLOUT_STATES),
    reason: z.string().nullable(),
  }),
  z.object({
    type: z.literal("wave"),
    seq: countSchema,
    time: timeSchema,
    actor: z.string(),
    wave: z.int(),
    state: z.enum(WAVE_STATES),
  }),
  z.object({
    type: z.literal("verdict"),
    seq: countSchema,
    time: timeSchema,
    actor: z.string(),
    wave: z.int(),
    look: z.int(),
    verdict: gateVerdictSchema,
  }),
  z.object({
    type: z.literal("action"),
    seq: countSchema,
    time: timeSchema,
    actor: z.string(),
    action: z.string(),
    wave: z.int().nullable(),
    reason: z.string().nullable(),
  }),
  /** Devices that a step failed, skipped or added, named (the first hundred) and counted. */
  z.object({
    type: z.literal("devices"),
    seq: countSchema,
    time: timeSchema,
    actor: z.string(),
    what: z.enum(["failed", "silent", "skipped", "joined", "retried"]),
    count: countSchema,
    devices: z.array(z.object({ device: deviceIdSchema, errorCode: z.string().nullable() })).max(100),
  }),
]);
export type RolloutEvent = z.output<typeof rolloutEventSchema>;

/** `event: progress` of the stream. */
export const rolloutProgressSchema = z.object({
  rollout: z.string(),
  time: timeSchema,
  state: z.enum(ROLLOUT_STATES),
  waitsFor: z.string().nullable(),
  counts: deviceCountsSchema,
  waves: z.array(
    z.object({ wave: z.int(), state: z.enum(WAVE_STATES), counts: deviceCountsSchema, looks: countSchema }),
  ),
});
export type RolloutProgress = z.output<typeof rolloutProgressSchema>;
