import { DEPLOYMENT, isFinal, type RolloutSubject } from "@fieldloop/protocol";
import type { Claim, FleetDevice } from "./fleet.js";
import { laneFor } from "./lanes.js";
import type { LiveRollout } from "./rollout-live.js";
import { hasFailed, slotOf, type Previous, type RolloutDevice } from "./rollout.js";

/** Whether the device proves by its own report that it has this. */
export function hasSubject(device: FleetDevice, subject: RolloutSubject): boolean {
  return subject.kind === "package"
    ? device.runningOf(subject.model)?.packageSha256 === subject.packageSha256
    : device.configId === subject.configId;
}

export function hasPrevious(device: FleetDevice, previous: Previous): boolean {
  return previous.kind === "config"
    ? device.configId === previous.configId
    : device.runningOf(previous.model)?.packageSha256 === previous.packageSha256;
}

/** Whether what one assigns takes the place of what the other did: the same slot, or another model in the same lane. */
function samePlace({ lanes }: FleetDevice, one: RolloutSubject, other: RolloutSubject): boolean {
  if (slotOf(one) === slotOf(other)) return true;
  if (one.kind === "config" || other.kind === "config") return false;
  return laneFor(lanes, one.model) === laneFor(lanes, other.model);
}

/** When a rollout last had its say in a device's desired state: by its offer or by what it took back. */
function saidAt({ offered, restore, restoreOffered }: RolloutDevice): number {
  const returned = restore === "none" || restore === "impossible" ? 0 : (restoreOffered ?? 0);
  return Math.max(offered ?? 0, returned);
}

/** The rollout that last said what the device has in this one's place, if that was after it: its desired state holds nothing of this one. */
export function laterClaim(
  live: LiveRollout,
  entry: RolloutDevice,
  device: FleetDevice | undefined,
): Claim | undefined {
  let latest: Claim | undefined;
  for (const claim of device?.claims ?? []) {
    if (claim.live === live || !samePlace(device!, claim.live.record.subject, live.record.subject)) continue;
    if (saidAt(claim.entry) > saidAt(latest?.entry ?? entry)) latest = claim;
  }
  return latest;
}

/** Its offer holds: the device has it, is at it, or finds it when it comes back. Not once it ended there, or is taken back. */
export function stands({ live, entry }: Claim, device: FleetDevice): boolean {
  if (live.state === "rolling_back" || live.state === "rolled_back") return false;
  return live.state === "aborted" ? isKept(live, entry, device) : isWanted(entry);
}

/** Asked, and neither ended there nor returned. */
function isWanted({ state, restore, word }: RolloutDevice): boolean {
  if (restore !== "none" || state === "skipped" || state === "waiting") return false;
  // One that was only too slow for this server may still arrive.
  if (state === "timed_out") return word === null || !isFinal(DEPLOYMENT, word.state);
  return !hasFailed(state);
}

/** An abort took back what was not done. */
function isKept(live: LiveRollout, entry: RolloutDevice, device: FleetDevice): boolean {
  return isWanted(entry) && (entry.state === "active" || hasSubject(device, live.record.subject));
}

/** It is being taken back from the device, or is about to be. */
export function isReturning({ live, entry }: Claim): boolean {
  if (entry.restore === "offered") return true;
  return entry.restore === "none" && entry.offered !== null && live.state === "rolling_back";
}

/** The device was left to another rollout, which failed there or was taken back, and has what this one brought. */
export function isBack(live: LiveRollout, entry: RolloutDevice, device: FleetDevice | undefined): boolean {
  const { state, offered, hold } = entry;
  if (!device || state !== "skipped" || offered === null || hold?.by === undefined) return false;
  const taker = device.claims.find((claim) => claim.live.id === hold.by);
  if (!taker || taker.entry.state === "waiting") return false;
  if (isReturning(taker) || stands(taker, device)) return false;
  return hasSubject(device, live.record.subject);
}
