import type { DeviceSelector, RolloutTarget } from "@fieldloop/protocol";

export interface GroupRecord {
  readonly group: string;
  readonly devices: readonly string[] | null;
  readonly selector: Readonly<Record<string, string>> | null;
}

/** What a selector can ask about a device. */
export interface SelectableDevice {
  readonly device: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly deviceClass: string;
  readonly running: { readonly model: string } | null;
  readonly lanes: readonly { readonly running: { readonly model: string } | null }[];
}

/** The group of every device; it always exists. */
export const EVERY_DEVICE = "all";

/** A static group names its devices; a dynamic one takes every device that has all its tags. */
export function isMember(
  group: GroupRecord,
  device: string,
  tags: Readonly<Record<string, string>>,
): boolean {
  return group.devices ? group.devices.includes(device) : hasTags(tags, group.selector ?? {});
}

function hasTags(tags: Readonly<Record<string, string>>, wanted: Readonly<Record<string, string>>): boolean {
  for (const key in wanted) if (tags[key] !== wanted[key]) return false;
  return true;
}

export function fitsSelector(selector: DeviceSelector, device: SelectableDevice): boolean {
  const { tags, deviceClasses, runsModel } = selector;
  if (!hasTags(device.tags, tags)) return false;
  if (deviceClasses && !deviceClasses.includes(device.deviceClass)) return false;
  if (runsModel === undefined || device.running?.model === runsModel) return true;
  return device.lanes.some(({ running }) => running?.model === runsModel);
}

/** Whether a device is in a target now. Made once per change of the groups: a static list is looked up in a set. */
export function targetTest(
  target: RolloutTarget,
  groups: ReadonlyMap<string, GroupRecord>,
): (device: SelectableDevice) => boolean {
  if ("selector" in target) return (device) => fitsSelector(target.selector, device);
  if ("devices" in target) {
    const named = new Set(target.devices);
    return ({ device }) => named.has(device);
  }
  if (target.group === EVERY_DEVICE) return () => true;
  const group = groups.get(target.group);
  if (!group) return () => false;
  if (!group.devices) return ({ tags }) => hasTags(tags, group.selector ?? {});
  const named = new Set(group.devices);
  return ({ device }) => named.has(device);
}

/** Joins and leavings after the start count. */
export function isDynamic(target: RolloutTarget): boolean {
  return "membership" in target && target.membership === "dynamic";
}

/** Equal for targets that mean the same: a newer rollout of one takes an older one's place. Null: none can. */
export function targetKey(target: RolloutTarget): string | null {
  if ("devices" in target) return null;
  if ("group" in target) return `group:${target.group}`;
  const { tags, deviceClasses, runsModel } = target.selector;
  const sorted = Object.entries(tags).sort(([a], [b]) => (a < b ? -1 : 1));
  return `selector:${JSON.stringify([sorted, deviceClasses?.toSorted() ?? null, runsModel ?? null])}`;
}
