import type { DevicePolicy, DevicePolicyChange } from "@fieldloop/protocol";
import { isMember, type GroupRecord } from "../domain/groups.js";
import type { Tags } from "../store/devices.js";

export type { DevicePolicy, DevicePolicyChange } from "@fieldloop/protocol";

/** About 20 MB of samples an hour at most, one frame in a hundred by chance, and at most six a minute for their worth. */
export const DEFAULT_POLICY: DevicePolicy = {
  bytesPerHour: 20 * 1024 * 1024,
  randomShare: 0.01,
  worthMin: 0.3,
  worthPerMinute: 6,
  predictionsIntervalSeconds: 2,
  profileIntervalSeconds: 30,
  downloadBytesPerSecond: null,
  bytesPerDay: null,
};

/** A policy of the fleet, overridden by groups in the order of their names, then by what was rolled out to the device, then by its own. */
export function effectivePolicy(
  base: DevicePolicy,
  policies: ReadonlyMap<string, DevicePolicyChange>,
  groups: readonly GroupRecord[],
  device: string,
  tags: Tags,
  rolledOut: DevicePolicyChange = {},
): DevicePolicy {
  const scopes = [
    policies.get("default"),
    ...groups
      .filter((group) => isMember(group, device, tags))
      .map((group) => policies.get(`group:${group.group}`)),
    rolledOut,
    policies.get(`device:${device}`),
  ];
  return scopes.reduce<DevicePolicy>((policy, scope) => ({ ...policy, ...scope }), base);
}
