import type { FleetDevice } from "./fleet.js";
import { ENGINE } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import { newRolloutDevice, type RolloutDevice } from "./rollout.js";
import { waveOfJoined } from "./waves.js";

/**
 * Joins and leavings of a dynamic target, for devices that changed. Who was asked already stays, whatever happens to its tags.
 * @param inside whether a device is in the target now
 */
export function noteMembers(
  live: LiveRollout,
  changed: Iterable<FleetDevice>,
  inside: (device: FleetDevice) => boolean,
  now: number,
): void {
  const joiners: FleetDevice[] = [];
  for (const device of changed) {
    const entry = live.devices.get(device.device);
    if (entry) noteMember(live, entry, inside(device), now);
    else if (takesJoiners(live) && inside(device)) joiners.push(device);
  }
  // The same order whatever the changes came in.
  for (const device of joiners.sort((a, b) => (a.device < b.device ? -1 : 1))) join(live, device);
}

function noteMember(live: LiveRollout, entry: RolloutDevice, inside: boolean, now: number): void {
  const left = entry.state === "skipped" && entry.hold?.reason === "left";
  if (!inside && entry.state === "waiting") leave(live, entry, now);
  else if (inside && left && takesJoiners(live))
    live.change(entry, { state: "waiting", hold: null, updated: now });
}

/** An ended rollout takes nobody, but one that succeeded and still says what its target has. */
export function takesJoiners(live: LiveRollout): boolean {
  switch (live.state) {
    case "draft":
    case "awaiting_approval":
    case "scheduled":
    case "running":
    case "paused":
      return true;
    case "succeeded":
      return live.record.current && live.record.supersededBy === null;
    case "aborted":
    case "rolling_back":
    case "rolled_back":
      return false;
  }
}

function join(live: LiveRollout, device: FleetDevice): void {
  const { wave } = waveOfJoined(live.id, device, live.waves);
  const place = { wave, position: live.devices.size, control: false, joined: true };
  const entry = newRolloutDevice(device.device, place);
  live.add(entry);
  live.note("joined", ENGINE, entry);
}

function leave(live: LiveRollout, entry: RolloutDevice, now: number): void {
  const hold = { reason: "left", detail: "it is no longer in the target" } as const;
  live.change(entry, { state: "skipped", hold, updated: now });
  live.note("skipped", ENGINE, entry);
}
