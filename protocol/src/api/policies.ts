import { z } from "zod";
import { bandwidthLimitsSchema, samplingPolicySchema } from "../messages/desired.js";

/** What a device may send and how often, and what it may take of its link: the configuration that the fleet holds for it. */
export const devicePolicySchema = z.object({
  ...samplingPolicySchema.shape,
  predictionsIntervalSeconds: z.number().min(0.1).max(3600),
  profileIntervalSeconds: z.number().min(1).max(86_400),
  /** Of the files of packages; null: as fast as the link. */
  downloadBytesPerSecond: bandwidthLimitsSchema.shape.downloadBytesPerSecond.unwrap(),
  /** Of everything that it sends and fetches in a day; null: no bound. */
  bytesPerDay: bandwidthLimitsSchema.shape.bytesPerDay.unwrap(),
});
export type DevicePolicy = z.output<typeof devicePolicySchema>;

/** A scope's say: what it leaves out comes from wider scopes. */
export const devicePolicyChangeSchema = devicePolicySchema.partial();
export type DevicePolicyChange = z.output<typeof devicePolicyChangeSchema>;
