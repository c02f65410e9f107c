import type { FleetDevice } from "./fleet.js";
import { ENGINE } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import { newRolloutDevice, type RolloutDevice } from "./rollout.js";
import { waveOfJoined } from "./waves.js";

/** Joins and leavings of one device of a dynamic target. Who was asked already stays, whatever happens to its tags. */
export function noteMembership(live: LiveRollout, device: FleetDevice, inside: boolean, now: number): void {
  const entry = live.devices.get(device.device);
  if (!entry) {
    if (inside && takesJoiners(live)) join(live, device);
    return;
  }
  const left = entry.state === "skipped" && entry.hold?.reason === "left";
  if (!inside && entry.state === "waiting") leave(live, entry, now);
  else if (inside && left && takesJoiners(live)) live.change(entry, { state: "waiting", hold: null, updated: now });
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
