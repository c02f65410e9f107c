import { samplingPolicySchema } from "@fieldloop/protocol";
import { z } from "zod";
import type { Tags } from "../store/devices.js";

/** What a device may send and how often: a policy of the fleet, overridden by groups in the order of their names, then by device. */
export const devicePolicySchema = z.object({
  ...samplingPolicySchema.shape,
  predictionsIntervalSeconds: z.number().min(0.1).max(3600),
  profileIntervalSeconds: z.number().min(1).max(86_400),
});
export type DevicePolicy = z.output<typeof devicePolicySchema>;

export const devicePolicyChangeSchema = devicePolicySchema.partial();
export type DevicePolicyChange = z.output<typeof devicePolicyChangeSchema>;

/** About 20 MB of samples an hour at most, one frame in a hundred by chance, and at most six a minute for their worth. */
export const DEFAULT_POLICY: DevicePolicy = {
  bytesPerHour: 20 * 1024 * 1024,
  randomShare: 0.01,
  worthMin: 0.3,
  worthPerMinute: 6,
  predictionsIntervalSeconds: 2,
  profileIntervalSeconds: 30,
};

export interface GroupRecord {
  readonly group: string;
  readonly devices: readonly string[] | null;
  readonly selector: Tags | null;
}

/** A static group names its devices; a dynamic one takes every device that has all its tags. */
export function isMember(group: GroupRecord, device: string, tags: Tags): boolean {
  if (group.devices) return group.devices.includes(device);
  return Object.entries(group.selector ?? {}).every(([key, value]) => tags[key] === value);
}

export function effectivePolicy(
  base: DevicePolicy,
  policies: ReadonlyMap<string, DevicePolicyChange>,
  groups: readonly GroupRecord[],
  device: string,
  tags: Tags,
): DevicePolicy {
  const scopes = [
    "default",
    ...groups.filter((group) => isMember(group, device, tags)).map((group) => `group:${group.group}`),
    `device:${device}`,
  ];
  return scopes.reduce<DevicePolicy>((policy, scope) => ({ ...policy, ...policies.get(scope) }), base);
}
