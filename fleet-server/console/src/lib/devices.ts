import type { DeviceSummary, Page } from "@fieldloop/protocol";
import { request, withQuery } from "../api/client.js";

/** Devices the table holds at most: more are reached by search on the server's API. */
export const DEVICES_MAX = 20_000;
const PAGE_SIZE = 500;

export interface DeviceList {
  items: DeviceSummary[];
  /** False where the fleet is larger than {@link DEVICES_MAX}. */
  complete: boolean;
}

/** All pages of the list, one after the other. */
export async function fetchDevices(path: string): Promise<DeviceList> {
  const items: DeviceSummary[] = [];
  let cursor: string | undefined;
  do {
    const page: Page<DeviceSummary> = await request(withQuery(path, { limit: PAGE_SIZE, cursor }));
    items.push(...page.items);
    cursor = page.next ?? undefined;
  } while (cursor !== undefined && items.length < DEVICES_MAX);
  return { items, complete: cursor === undefined };
}

/** Something to look at: trouble, silence, or another version than wanted. Offline on purpose and suspended are left out. */
export function needsAttention(device: DeviceSummary): boolean {
  return !device.suspended && (device.health !== "ok" || isBehind(device));
}

/** What runs is not what was asked for, by hash; nothing wanted is not behind. */
export function isBehind(device: DeviceSummary): boolean {
  return device.wanted !== null && device.running?.packageSha256 !== device.wanted.packageSha256;
}

export const SORTS = ["trouble", "device", "version", "rate", "confidence", "accuracy", "seen"] as const;
export type Sort = (typeof SORTS)[number];

const TROUBLE: Record<DeviceSummary["health"], number> = {
  error: 0,
  silent: 1,
  warning: 2,
  offline: 3,
  ok: 5,
};
const trouble = (device: DeviceSummary) => Math.min(TROUBLE[device.health], isBehind(device) ? 4 : 5);
const none = Number.POSITIVE_INFINITY;

/** Worst or lowest first; ties by name. */
const KEYS: Record<Sort, (device: DeviceSummary) => number | string> = {
  trouble,
  device: (device) => device.device,
  version: (device) =>
    device.running ? `${device.running.model}@${String(device.running.version).padStart(7, "0")}` : "",
  rate: (device) => device.predictionsPerSecond,
  confidence: (device) => device.meanConfidence ?? none,
  accuracy: (device) => device.accuracy.value ?? none,
  seen: (device) => -(device.lastSeen ?? 0),
};

export function sortDevices(
  devices: readonly DeviceSummary[],
  sort: Sort,
  reverse: boolean,
): DeviceSummary[] {
  const key = KEYS[sort];
  const sign = reverse ? -1 : 1;
  return devices.toSorted((a, b) => {
    const [left, right] = [key(a), key(b)];
    if (left !== right) return (left < right ? -1 : 1) * sign;
    return a.device < b.device ? -1 : 1;
  });
}

/** Every word must be found in the name, a tag (`site=lyon`), the model version or its hash. */
export function matchesSearch(device: DeviceSummary, search: string): boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const { running } = device;
  const text = [
    device.device,
    ...Object.entries(device.tags).map(([key, value]) => `${key}=${value}`),
    running ? `${running.model}@${running.version} ${running.packageSha256} ${running.variant}` : "",
    ...device.lanes.map((lane) => (lane.running ? `${lane.running.model}@${lane.running.version}` : "")),
  ]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}
