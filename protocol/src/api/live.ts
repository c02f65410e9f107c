import { z } from "zod";
import { countSchema } from "../names.js";
import { proportionSchema } from "./common.js";

/** Server-sent events of `/api/v1/live`: `event:` is the type, `data:` this as JSON. A page reloads what an event names. */
export const LIVE_TYPES = [
  "device",
  "predictions",
  "sample",
  "rollout",
  "training",
  "model",
  "evaluation",
] as const;
export const liveEventSchema = z.object({
  type: z.enum(LIVE_TYPES),
  id: z.string(),
  device: z.string().optional(),
});
export type LiveEvent = z.output<typeof liveEventSchema>;

export const overviewSchema = z.object({
  serverVersion: z.string(),
  devices: z.object({ total: countSchema, online: countSchema, needAttention: countSchema }),
  predictionsTotal: countSchema,
  predictionsPerSecond: z.number(),
  samplesTotal: countSchema,
  samplesUnlabelled: countSchema,
  rolloutsRunning: countSchema,
  trainingRunning: countSchema,
  accuracy: proportionSchema,
  /** Bytes of `up/predictions` packets and their acknowledgements both ways, MQTT headers included, over the predictions they carried. */
  bytesPerPrediction: z.number().nullable(),
});
export type Overview = z.output<typeof overviewSchema>;
