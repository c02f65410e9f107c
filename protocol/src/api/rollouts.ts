import { z } from "zod";
import {
  countSchema,
  deviceClassSchema,
  deviceIdSchema,
  modelNameSchema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { LIMITS } from "../limits.js";
import { shadowTermsSchema, updateWindowSchema } from "../messages/desired.js";
import { tagsSchema } from "./devices.js";
import { gateSettingsSchema } from "./gates.js";
import { devicePolicyChangeSchema } from "./policies.js";

/** What a rollout changes: the package of a model's lane, or the configuration of the agent. */
export const rolloutChangeSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("package"), model: modelNameSchema, version: versionSchema }),
  z.object({
    kind: z.literal("config"),
    /** Everything that this configuration says; what it leaves out comes from the policies of the device's groups and the fleet. */
    policy: devicePolicyChangeSchema.refine((policy) => Object.keys(policy).length > 0, {
      message: "says nothing",
    }),
  }),
]);
export type RolloutChange = z.output<typeof rolloutChangeSchema>;

/** Devices by what they are: every part that is given must fit. */
export const deviceSelectorSchema = z.object({
  /** All of these tags, with these values. */
  tags: tagsSchema.default({}),
  /** One of these device classes. */
  deviceClasses: z.array(deviceClassSchema).min(1).max(64).optional(),
  /** Runs some version of this model in one of its lanes. */
  runsModel: modelNameSchema.optional(),
});
export type DeviceSelector = z.output<typeof deviceSelectorSchema>;

/** `dynamic`: who joins or leaves the target later is treated as if it had been so from the start. `frozen`: those of the start. */
const membershipSchema = z.enum(["dynamic", "frozen"]).default("dynamic");

export const rolloutTargetSchema = z.union([
  z.object({ group: z.string().min(1).max(64), membership: membershipSchema }),
  z.object({ selector: deviceSelectorSchema, membership: membershipSchema }),
  z.object({ devices: z.array(deviceIdSchema).min(1).max(LIMITS.rolloutDevicesMax) }),
]);
export type RolloutTarget = z.output<typeof rolloutTargetSchema>;

const waveTermsSchema = z.object({
  name: z.string().min(1).max(64).optional(),
  /** A person must let the wave begin (action `approve` with its number). */
  approvalBefore: z.boolean().default(false),
  /** At least this long between the wave's last commit and its verdict; the gate's `soakSeconds` where it is longer. */
  soakSecondsMin: z
    .number()
    .min(0)
    .max(30 * 86_400)
    .default(0),
});

/** Who is in a wave: a cumulative share of the target in percent, a number of devices, named devices, or those that a selector fits. */
export const waveRequestSchema = z.union([
  waveTermsSchema.extend({ percent: z.number().gt(0).max(100) }),
  waveTermsSchema.extend({ count: z.int().min(1) }),
  waveTermsSchema.extend({ devices: z.array(deviceIdSchema).min(1).max(LIMITS.waveDevicesMax) }),
  waveTermsSchema.extend({ selector: deviceSelectorSchema }),
]);
export type WaveRequest = z.output<typeof waveRequestSchema>;

/** A part of the target that is held back, by chance, until everything else has passed: what canaries are compared with. */
export const controlSchema = z.union([
  z.object({ share: z.number().gt(0).max(0.5) }),
  z.object({ count: z.int().min(1).max(100_000) }),
]);
export type ControlRequest = z.output<typeof controlSchema>;

/** For each value of a tag: never more devices of it unavailable at once, for whatever reason (updating, offline, failed, suspended). */
export const siteBudgetSchema = z.object({
  tag: z.string().min(1).max(63),
  /** A share is of all devices with the value, rounded down, but at least one. */
  maxUnavailable: z.union([
    z.object({ count: z.int().min(1) }),
    z.object({ percent: z.number().gt(0).max(100) }),
  ]),
});
export type SiteBudget = z.output<typeof siteBudgetSchema>;

export const scheduleSchema = z.object({
  /** Not before this time; null: at once. */
  startAt: timeSchema.nullable().default(null),
  /** Offers are made, and versions activated, only within one of these; any time where there is none. */
  windows: z.array(updateWindowSchema).max(14).default([]),
});
export type RolloutSchedule = z.output<typeof scheduleSchema>;

export const rolloutRequestSchema = z.object({
  change: rolloutChangeSchema,
  /** For people. */
  name: z.string().max(120).default(""),
  target: rolloutTargetSchema,
  /** The last must reach everyone, e.g. `{"percent": 100}`. */
  waves: z
    .array(waveRequestSchema)
    .min(1)
    .max(LIMITS.rolloutWavesMax)
    .prefault([{ count: 1 }, { percent: 100 }]),
  /** Null: nobody is held back; canaries are compared with devices whose wave has not come yet. */
  control: controlSchema.nullable().default(null),
  gate: gateSettingsSchema.prefault({}),
  /** What happens when a gate fails. */
  onFailure: z.enum(["pause", "abort", "roll_back"]).default("pause"),
  budgets: z.array(siteBudgetSchema).max(8).default([]),
  schedule: scheduleSchema.prefault({}),
  offersPerMinute: z.int().min(1).max(1_000_000).default(6000),
  /** Of rollouts that want the same lane of a device, the higher goes first; of equals, the newer. */
  priority: z.int().min(0).max(1000).default(500),
  /** A second person, not who created it, must approve before anything begins. */
  approval: z.object({ required: z.boolean() }).default({ required: false }),
  /** The candidate runs beside the active version first, until both; null: it does not. Packages only. */
  shadow: shadowTermsSchema
    .extend({ cpuShareMax: z.number().gt(0).max(1).default(0.25) })
    .nullable()
    .default(null),
  /** The device commits the new version after both. */
  probation: z
    .object({ seconds: countSchema, predictions: countSchema })
    .default({ seconds: 10, predictions: 50 }),
  /** A device that failed for a reason that may pass (a download, a disk, a timeout) is asked again; others never by themselves. */
  retries: z
    .object({ max: z.int().min(0).max(10), delaySeconds: z.int().min(1).max(86_400).default(60) })
    .default({ max: 0, delaySeconds: 60 }),
  /** A version without a passing evaluation needs a written reason. */
  forceReason: z.string().min(10).max(500).optional(),
  /** False: it stays a draft until the action `start`. */
  start: z.boolean().default(true),
});
export type RolloutRequest = z.output<typeof rolloutRequestSchema>;

const reasonSchema = z.string().max(500).default("");
const wrote = z.string().min(10).max(500);

/** What people may ask of a rollout; every one is written into the audit log with its reason. */
export const rolloutActionSchema = z.discriminatedUnion("action", [
  /** Begins a draft, or a scheduled one before its time. */
  z.object({ action: z.literal("start"), reason: reasonSchema }),
  /** Without a wave: the whole rollout, by another person than its creator. With one: lets that wave begin. */
  z.object({ action: z.literal("approve"), wave: z.int().min(1).optional(), reason: reasonSchema }),
  z.object({ action: z.literal("pause"), reason: reasonSchema }),
  z.object({ action: z.literal("resume"), reason: reasonSchema }),
  /** `keep`: done devices keep it, unfinished offers are withdrawn. `revert`: as `roll_back`. */
  z.object({
    action: z.literal("abort"),
    devices: z.enum(["keep", "revert"]).default("keep"),
    reason: reasonSchema,
  }),
  /** Every device that was asked returns to what it had before; also of a rollout that succeeded or was aborted. */
  z.object({ action: z.literal("roll_back"), reason: reasonSchema }),
  /** Asks failed and silent devices again (all, or those named) and lets a failed wave go on. */
  z.object({
    action: z.literal("retry"),
    devices: z.array(deviceIdSchema).min(1).max(LIMITS.waveDevicesMax).optional(),
    reason: reasonSchema,
  }),
  /** Lets the open wave pass by hand, whatever its gate says. */
  z.object({ action: z.literal("next_wave"), reason: wrote }),
]);
export type RolloutAction = z.output<typeof rolloutActionSchema>;
export type RolloutActionName = RolloutAction["action"];
