import { DEPLOYMENT, formatModelVersion, isFinal } from "@fieldloop/protocol";
import type { Claim, FleetDevice } from "./fleet.js";
import { mayRestore, type StepContext } from "./rollout-holds.js";
import { ENGINE } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import type { OfferBudget } from "./rollout-offers.js";
import { hasPrevious, hasSubject, isBack, isReturning, laterClaim, stands } from "./rollout-places.js";
import { isBusy, isInProgress, supersededHold, type RolloutDevice } from "./rollout.js";

const ABORTED = "the rollout was aborted";
const ROLLED_BACK = "the rollout was rolled back";
/** Devices that a step of a roll-back changes, about: what bounds its time. */
const CHANGED_MAX = 2_000;

/**
 * Takes a rollout back: every device that was asked gets what it had before, done when each proves it or stays silent. Windows do not
 * hold a roll-back up, the rate of offers and the sites' budgets do. An aborted rollout only waits for the offers that it withdrew.
 */
export function restoreDevices(live: LiveRollout, context: StepContext, budget: OfferBudget): void {
  const { now } = context;
  for (const entry of live.restoring) {
    const outcome = restoreOutcome(live, entry, context.fleet.get(entry.device), now);
    if (outcome) live.change(entry, { ...outcome, updated: now });
  }
  if (live.state !== "rolling_back") return;
  let rate = Math.min(live.pace.left(now), budget.left);
  let open = live.restoring.size > 0;
  const changed = live.journal.devices;
  for (const entry of live.devices.values()) {
    if (changed.size >= CHANGED_MAX) return;
    if (entry.state === "waiting") endWaiting(live, entry, ROLLED_BACK, now);
    if (entry.restore !== "none" || entry.offered === null) continue;
    const device = context.fleet.get(entry.device);
    const later = laterClaim(live, entry, device);
    // It may fail there, or be taken back: that would lead back to this one's version.
    if (later && (isReturning(later) || isBusy(later.entry))) {
      open = true;
      continue;
    }
    const restoreDetail = noReturn(live, entry, device, later);
    if (restoreDetail !== undefined) {
      if (isUnfinished(live, entry)) withdraw(live, entry, ROLLED_BACK, now);
      live.change(entry, { restore: "impossible", restoreDetail, updated: now });
      continue;
    }
    open = true;
    if (rate <= 0 || changerOf(live, device)) continue;
    if (!mayRestore(live.record.request.budgets, device, context.fleet)) continue;
    restore(live, entry, now);
    rate--;
    budget.left--;
  }
  if (!open) live.moveRollout("rolled_back", restoreSummary(live), ENGINE, now);
}

/**
 * Why a device cannot return; undefined where it can. Not one that had the version before this rollout, or nothing: there is no way
 * back to offer. Nor one that has something else by now, or was offered it: that is not this rollout's to take away.
 */
function noReturn(
  live: LiveRollout,
  entry: RolloutDevice,
  device: FleetDevice | undefined,
  later: Claim | undefined,
): string | undefined {
  const { previous, state, hold } = entry;
  if (previous === null) return "it had nothing before";
  if (later && stands(later, device!)) return supersededHold(later.live.id).detail;
  if (state === "skipped" && hold?.reason === "superseded" && !isBack(live, entry, device))
    return hold.detail;
  return otherNow(live, entry, device);
}

/** What it has that is neither this rollout's nor what it had before; undefined where there is no such thing. */
function otherNow(
  live: LiveRollout,
  { previous }: RolloutDevice,
  device: FleetDevice | undefined,
): string | undefined {
  if (!device || !previous || hasSubject(device, live.record.subject) || hasPrevious(device, previous))
    return undefined;
  if (previous.kind === "config") return "it has another configuration by now";
  const running = device.runningOf(previous.model);
  // It runs nothing now: its way back is still this one.
  return running ? `it runs ${formatModelVersion(running.model, running.version)} by now` : undefined;
}

/** The other rollout that is at it; that ends by itself. */
function changerOf(live: LiveRollout, device: FleetDevice | undefined): LiveRollout | undefined {
  return device?.claims.find((claim) => claim.live !== live && isBusy(claim.entry))?.live;
}

function restore(live: LiveRollout, entry: RolloutDevice, now: number): void {
  live.change(entry, { restore: "offered", restoreOffered: now });
  live.pace.note(now);
  live.journal.restores.push(entry);
  live.note("restored", ENGINE, entry);
}

/** Offers that are not done are taken back: the devices keep, or return to, what they had. */
export function withdrawOffers(live: LiveRollout, actor: string, now: number): void {
  for (const entry of live.devices.values()) {
    const unfinished = isUnfinished(live, entry);
    if (entry.state === "waiting") endWaiting(live, entry, ABORTED, now);
    if (!unfinished) continue;
    const device = live.deviceOf(entry);
    const later = laterClaim(live, entry, device);
    const kept = later ? supersededHold(later.live.id).detail : otherNow(live, entry, device);
    if (entry.previous === null || kept !== undefined) {
      withdraw(live, entry, ABORTED, now);
      if (kept !== undefined) live.change(entry, { restore: "impossible", restoreDetail: kept });
      continue;
    }
    cancel(live, entry, ABORTED, now);
    // One that was given up may be at another rollout's model by now: its desired state tells it both, and nobody waits for this one.
    const changer = changerOf(live, device);
    const restoreDetail = changer ? `rollout ${changer.id} is changing it; it goes back when it can` : null;
    live.change(entry, { restore: changer ? "silent" : "offered", restoreDetail, restoreOffered: now });
    live.journal.restores.push(entry);
    live.note("restored", actor, entry);
  }
}

/** The device is at it, or will be when it is heard again. */
function isUnfinished(live: LiveRollout, entry: RolloutDevice): boolean {
  const { state, restore, word, offered } = entry;
  if (restore !== "none" || offered === null) return false;
  if (isInProgress(state)) return true;
  // Given up, or to be asked again: what the device itself said last, and what it reports, tell how far it is.
  if (state !== "silent" && state !== "timed_out" && state !== "waiting") return false;
  if (word && (word.state === "active" || isFinal(DEPLOYMENT, word.state))) return false;
  const device = live.deviceOf(entry);
  return device === undefined || !hasSubject(device, live.record.subject);
}

/** It is not to be done any more, and nothing is asked in its place. */
function withdraw(live: LiveRollout, entry: RolloutDevice, errorMessage: string, now: number): void {
  cancel(live, entry, errorMessage, now);
  live.journal.withdrawals.push(entry);
}

/** A device that is silent stays so in what is told of it. */
function cancel(live: LiveRollout, entry: RolloutDevice, errorMessage: string, now: number): void {
  if (isInProgress(entry.state))
    live.change(entry, { state: "cancelled", errorCode: "cancelled", errorMessage, updated: now });
}

function endWaiting(live: LiveRollout, entry: RolloutDevice, detail: string, now: number): void {
  live.change(entry, { state: "skipped", hold: { reason: "ended", detail }, updated: now });
}

function restoreOutcome(
  live: LiveRollout,
  entry: RolloutDevice,
  device: FleetDevice | undefined,
  now: number,
): Pick<RolloutDevice, "restore" | "restoreDetail"> | undefined {
  if (device && entry.previous && hasPrevious(device, entry.previous))
    return { restore: "done", restoreDetail: null };
  // Its desired state is retained: it goes back whenever it returns; the rollout need not wait for ever.
  const offered = entry.restoreOffered ?? now;
  const { silenceSeconds, waveTimeoutSeconds } = live.record.request.gate;
  const silent = now - Math.max(device?.lastSeen ?? 0, offered) > silenceSeconds * 1000;
  const late = now - offered > waveTimeoutSeconds * 1000;
  if (!silent && !late) return undefined;
  const what = silent ? `nothing heard for ${silenceSeconds} s` : `not back within ${waveTimeoutSeconds} s`;
  return { restore: "silent", restoreDetail: `${what}; it goes back when it can` };
}

function restoreSummary(live: LiveRollout): string {
  const counts = { done: 0, silent: 0, nothing: 0, other: 0 };
  for (const { restore, previous } of live.devices.values()) {
    if (restore === "done" || restore === "silent") counts[restore]++;
    if (restore === "impossible") counts[previous === null ? "nothing" : "other"]++;
  }
  const parts = [
    live.record.reason ?? "rolled back",
    `${counts.done} ${counts.done === 1 ? "device" : "devices"} restored`,
  ];
  if (counts.silent > 0) parts.push(`${counts.silent} did not confirm it and will go back when they return`);
  if (counts.nothing > 0) parts.push(`${counts.nothing} ran nothing to return to`);
  if (counts.other > 0) parts.push(`${counts.other} had something else by then, or were gone`);
  return parts.join("; ");
}
