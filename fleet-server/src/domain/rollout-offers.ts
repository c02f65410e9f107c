import type { HoldReason } from "@fieldloop/protocol";
import type { FleetDevice } from "./fleet.js";
import { isNewer, obstacleTo, type StepContext } from "./rollout-holds.js";
import { ENGINE } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import { hasSubject } from "./rollout-places.js";
import { previousOf } from "./rollout-reports.js";
import { supersededHold, type RolloutDevice, type RolloutWave } from "./rollout.js";

/** Bounds one step: what is left over is offered by the next one. */
export interface OfferBudget {
  left: number;
}

/** Waiting devices of a rollout that one step asks or finds a reason for, at most. */
const LOOKED_AT_MAX = 2_000;
/** Devices of a wave that its gate looks at one by one: the first that were asked. More would not narrow an interval that matters. */
const WATCHED_MAX = 2_000;

/**
 * Offers to the devices of a wave that can be asked now. Where there are very many that cannot, a step looks at a part of them.
 * @returns whether the wave still waits for a device that is going to be asked: for the rate, a window, a retry, a site's budget
 */
export function offerWave(
  live: LiveRollout,
  wave: RolloutWave,
  context: StepContext,
  budget: OfferBudget,
): boolean {
  let waits = false;
  let rate = Math.min(live.pace.left(context.now), budget.left);
  let looked = 0;
  for (const entry of live.members[wave.wave - 1]!) {
    if (entry.state !== "waiting") continue;
    if (looked >= LOOKED_AT_MAX) return offerFurther(live, wave, context, budget) || waits;
    looked++;
    if (rate <= 0) {
      // Nobody behind it was looked at: they wait for the rate, unless they are known to wait for something else.
      if (entry.hold === null || entry.hold.reason === "retry" || entry.hold.reason === "window") return true;
      continue;
    }
    switch (tryOffer(live, entry, context, budget)) {
      case "offered":
        rate--;
        break;
      case "waits":
        waits = true;
        break;
      case "held":
        break;
    }
  }
  return waits;
}

/**
 * Those behind the first that were looked at, a part in each step.
 * @returns whether one of them is still to be asked, as far as it is known
 */
function offerFurther(
  live: LiveRollout,
  wave: RolloutWave,
  context: StepContext,
  budget: OfferBudget,
): boolean {
  let rate = Math.min(live.pace.left(context.now), budget.left);
  for (const entry of live.rounds.waiting[wave.wave - 1]!.take(LOOKED_AT_MAX)) {
    if (rate <= 0) break;
    if (entry.state === "waiting" && tryOffer(live, entry, context, budget) === "offered") rate--;
  }
  const { waiting, holds } = live.tallies[wave.wave - 1]!;
  let held = 0;
  for (const [reason, count] of holds) if (!PASSING_HOLDS.has(reason)) held += count;
  return waiting > held;
}

/** Reasons that end by themselves within the wave. */
const PASSING_HOLDS: ReadonlySet<HoldReason> = new Set(["retry", "window", "rate", "budget"]);

/** Devices whose wave passed without them: they returned, joined, or what held them up is over. */
export function offerLate(live: LiveRollout, context: StepContext, budget: OfferBudget): void {
  let rate = Math.min(live.pace.left(context.now), budget.left);
  // In the order of the plan, whenever each of them became late: after a restart nobody would know.
  const late = live.rounds.late.take(LOOKED_AT_MAX).sort((a, b) => a.position - b.position);
  for (const entry of late) {
    if (rate <= 0) return;
    if (tryOffer(live, entry, context, budget) === "offered") rate--;
  }
}

function tryOffer(
  live: LiveRollout,
  entry: RolloutDevice,
  context: StepContext,
  budget: OfferBudget,
): "offered" | "waits" | "held" {
  const device = context.fleet.get(entry.device);
  if (!device) return "held";
  const obstacle = obstacleTo(live, entry, device, context);
  if (obstacle) {
    const { reason, detail, passes } = obstacle;
    live.hold(entry, { reason, detail });
    return passes ? "waits" : "held";
  }
  offer(live, entry, device, context.now);
  budget.left--;
  return "offered";
}

function offer(live: LiveRollout, entry: RolloutDevice, device: FleetDevice, now: number): void {
  const { subject } = live.record;
  const already = hasSubject(device, subject);
  // A second attempt must not take the version that is being tried for the one to return to.
  const previous = already ? entry.previous : (previousOf(device, subject) ?? entry.previous);
  live.change(entry, {
    state: already ? "active" : "offered",
    hold: null,
    attempt: entry.attempt + 1,
    errorCode: null,
    errorMessage: null,
    offered: now,
    updated: now,
    retryAt: null,
    previous,
    restore: "none",
    restoreDetail: null,
    restoreOffered: null,
    watch: null,
    word: null,
  });
  live.compared.delete(entry);
  const watched = live.watched[entry.wave - 1]!;
  if (watched.size < WATCHED_MAX) watched.add(entry);
  if (watched.has(entry)) live.journal.watched.push(entry);
  live.pace.note(now);
  live.journal.offers.push(entry);
  live.note("offered", ENGINE, entry);
  supersedeOthers(live, device, now);
}

/** Older rollouts for the same place have nothing more to say about the device. */
function supersedeOthers(live: LiveRollout, device: FleetDevice, now: number): void {
  for (const { live: other, entry } of device.claims) {
    if (other === live || other.slot !== live.slot || other.state === "rolling_back") continue;
    // A newer one of lower priority only waits; it has the last word.
    if (isNewer(other, live)) continue;
    const open = other.state === "running" || other.state === "paused";
    const stays = open ? entry.state !== "active" && entry.state !== "silent" : true;
    if (entry.state !== "waiting" && stays) continue;
    other.change(entry, { state: "skipped", hold: supersededHold(live.id), updated: now });
    other.note("skipped", ENGINE, entry);
  }
}

/**
 * A wave of devices taken by chance begins with those that can be asked: one that cannot changes places with a device of a later
 * wave that can, so that a canary that is switched off does not leave its wave empty.
 */
export function fillWave(live: LiveRollout, wave: RolloutWave, context: StepContext): void {
  if (!isByChance(wave)) return;
  const later = live.waves.filter(
    (one) => one.wave > wave.wave && isByChance(one) && one.state === "pending",
  );
  const spares = later
    .flatMap((one) => [...live.members[one.wave - 1]!])
    .filter(({ state, control }) => state === "waiting" && !control);
  const pairs: [RolloutDevice, RolloutDevice][] = [];
  let at = 0;
  for (const entry of live.members[wave.wave - 1]!) {
    if (entry.state !== "waiting" || canBeAsked(live, entry, context)) continue;
    while (at < spares.length && !canBeAsked(live, spares[at]!, context)) at++;
    const spare = spares[at++];
    if (!spare) break;
    pairs.push([entry, spare]);
  }
  if (pairs.length > 0) live.exchange(pairs);
}

function isByChance({ plan }: RolloutWave): boolean {
  return plan !== null && ("percent" in plan || "count" in plan);
}

/** Now, or within the wave. */
function canBeAsked(live: LiveRollout, entry: RolloutDevice, context: StepContext): boolean {
  const device = context.fleet.get(entry.device);
  if (!device) return false;
  const obstacle = obstacleTo(live, entry, device, context);
  return !obstacle || obstacle.passes || obstacle.reason === "budget";
}
