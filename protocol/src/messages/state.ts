import { z } from "zod";
import {
  countSchema,
  deviceClassSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { DEPLOYMENT_STATES } from "../states.js";
import { bootSchema } from "./delivery.js";
import { laneNameSchema } from "./desired.js";
import { errorCodeSchema, SEVERITIES, wireErrorSchema } from "./event.js";

/** What a device is: its hardware profile decides which variant it gets. */
export const factsSchema = z.object({
  arch: z.string().max(32),
  platform: z.string().max(32),
  cpuModel: z.string().max(128),
  cpuCount: z.int().min(1).max(4096),
  cpuFlags: z.array(z.string().max(32)).max(64),
  memoryBytes: countSchema,
  executionProviders: z.array(z.string().max(32)).max(16),
  nodeVersion: z.string().max(32),
  runtimeVersion: z.string().max(64),
  timeZone: z.string().max(64),
  /** What packages name that are not for every device: `linux-x64`, or as the device was told at its start. */
  deviceClass: deviceClassSchema.default("unknown"),
  /** Newest operator set, IR version and manifest that it reads; null where a device does not say, and then nobody can check. */
  opsetMax: z.int().min(1).max(1_000).nullable().default(null),
  irVersionMax: z.int().min(1).max(1_000).nullable().default(null),
  manifestSchemaMax: z.int().min(1).max(1_000).default(1),
});
export type Facts = z.output<typeof factsSchema>;

/**
 * What a deployment waits for: its maintenance window; bytes of the day's budget; metadata of the trust that can be verified; a server that
 * answers; a disk that takes what is written.
 */
export const WAITING_REASONS = ["window", "budget", "trust", "server", "storage"] as const;
export type WaitingReason = (typeof WAITING_REASONS)[number];

const deploymentStateSchema = z.object({
  deployment: z.string().max(64),
  state: z.enum(DEPLOYMENT_STATES),
  error: wireErrorSchema.optional(),
  /** It goes on by itself; absent while it works. */
  waiting: z
    .object({
      reason: z.enum(WAITING_REASONS),
      /** When it goes on, or tries again; null where nobody knows. */
      until: timeSchema.nullable(),
      /** Why the last try was not enough. */
      code: errorCodeSchema.optional(),
    })
    .optional(),
});
export type DeploymentWaiting = NonNullable<z.output<typeof deploymentStateSchema>["waiting"]>;

export const runningSchema = z.object({
  /** Share of the graph's nodes that each execution provider runs, 0..1; told where it was measured. */
  providerShares: z.record(z.string().max(256), z.number().min(0).max(1)).optional(),
  model: modelNameSchema,
  version: versionSchema,
  /** Hash of the package whose session answers right now: not what was asked for, what runs. */
  packageSha256: sha256Schema,
  variant: z.string().max(32),
  /** Its name, or the address of the server that runs the model. */
  executionProvider: z.string().max(256),
  since: timeSchema,
});

/** One source of the device, and what it runs. `running` and `deployment` of the state are those of the first lane. */
export const laneStateSchema = z.object({
  name: laneNameSchema,
  source: z.string().max(200),
  /** The model that this lane is for; any where there is none. */
  model: modelNameSchema.nullable(),
  priority: z.int().min(0).max(100),
  running: runningSchema.nullable(),
  deployment: deploymentStateSchema.nullable(),
  framesSeen: countSchema,
  framesDropped: countSchema,
  framesFailed: countSchema,
  /** Beyond the rate that the lane is given: not taken, and no loss. */
  framesSkipped: countSchema.default(0),
  /** What the source counted in this boot, e.g. rows, malformedRows, gaps, restarts. */
  sourceCounts: z.record(z.string().max(32), countSchema).optional(),
  /** Frames a second that the governor allows at the moment; null where nothing limits it. */
  rateMax: z.number().min(0).nullable(),
});
export type LaneState = z.output<typeof laneStateSchema>;

/** `up/state`: the reported state, retained. */
export const stateSchema = z.object({
  time: timeSchema,
  boot: bootSchema,
  agentVersion: z.string().max(32),
  facts: factsSchema,
  running: runningSchema.nullable(),
  previous: z
    .object({ model: modelNameSchema, version: versionSchema, packageSha256: sha256Schema })
    .nullable(),
  deployment: deploymentStateSchema.nullable(),
  lanes: z.array(laneStateSchema).max(8).default([]),
  desiredRevision: countSchema,
  /** Of the desired state that is applied and persisted: the configuration that was rolled out to the device. */
  configId: z.string().max(64).nullable().default(null),
  warnings: z
    .array(
      z.object({
        code: z.string().max(64),
        severity: z.enum(SEVERITIES),
        message: z.string().max(500),
        since: timeSchema,
      }),
    )
    .max(32),
  counters: z.object({
    /** Predictions numbered in this boot. */
    predictions: countSchema,
    framesDropped: countSchema,
    framesFailed: countSchema,
    samplesTaken: countSchema,
    recordsEvicted: countSchema,
    hostRestarts: countSchema,
  }),
  spool: z.object({ records: countSchema, bytes: countSchema, bytesMax: countSchema }),
  source: z.string().max(200),
});
export type DeviceState = z.output<typeof stateSchema>;
