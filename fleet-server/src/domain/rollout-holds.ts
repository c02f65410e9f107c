import type { SiteBudget } from "@fieldloop/protocol";
import type { FitCheck } from "./compatibility.js";
import type { Claim, Fleet, FleetDevice } from "./fleet.js";
import type { LiveRollout } from "./rollout-live.js";
import { isBusy, type Hold, type RolloutDevice } from "./rollout.js";

/** What a step works with. */
export interface StepContext {
  readonly fleet: Fleet;
  /** Whether a rollout's package fits a device; configurations fit all. */
  readonly fits: (live: LiveRollout) => FitCheck;
  readonly now: number;
}

/** Why a device cannot be asked now. */
export interface Obstacle extends Hold {
  /** It goes away by itself within the wave: the wave waits for it. Others do not hold the wave up. */
  readonly passes: boolean;
}

/** @returns undefined where the device can be asked, but for the rate of offers */
export function obstacleTo(
  live: LiveRollout,
  entry: RolloutDevice,
  device: FleetDevice,
  context: StepContext,
): Obstacle | undefined {
  const { now } = context;
  if (device.suspended)
    return {
      reason: "suspended",
      detail: "it is suspended, and asked when it is let in again",
      passes: false,
    };
  if (entry.retryAt !== null && entry.retryAt > now)
    return { reason: "retry", detail: entry.hold?.detail ?? "it is asked again", passes: true };
  const misfit = context.fits(live)(device.facts)?.message ?? laneMisfit(live, device);
  if (misfit !== undefined) return { reason: "incompatible", detail: misfit, passes: false };
  const rival = rivalOf(live, device);
  if (rival) return { reason: "priority", detail: describeRival(rival), passes: false };
  if (!device.online)
    return { reason: "offline", detail: "it is offline, and asked when it returns", passes: false };
  return closedWindow(live, device, now) ?? overBudget(live.record.request.budgets, device, context.fleet);
}

/** Every lane of the device is for another model. */
function laneMisfit({ record: { subject } }: LiveRollout, { lanes }: FleetDevice): string | undefined {
  if (subject.kind !== "package" || lanes.length === 0) return undefined;
  if (lanes.some(({ model }) => model === null || model === subject.model)) return undefined;
  const models = lanes.map(({ name, model }) => `${name}: ${model}`).join(", ");
  return `none of its lanes takes "${subject.model}" (${models})`;
}

/** The rollout that has this device before `live`: one that is changing it now, or that goes first for the same place. */
export function rivalOf(live: LiveRollout, device: FleetDevice): Claim | undefined {
  if (device.claims.length < 2) return undefined;
  return device.claims.find(
    (claim) =>
      claim.live !== live &&
      (isBusy(claim.entry) ||
        (claim.live.slot === live.slot && wants(claim) && goesBefore(claim.live, live))),
  );
}

/** An open rollout keeps its devices until it ends; a rollout that is being rolled back, those it has to take back. */
function wants({ live, entry }: Claim): boolean {
  if (entry.state === "skipped") return false;
  if (live.state === "rolling_back") return entry.offered !== null && entry.restore === "none";
  return live.state === "running" || live.state === "paused" || (live.record.current && waits(entry));
}

function waits(entry: RolloutDevice): boolean {
  return entry.state === "waiting";
}

/** A roll-back before everything, open rollouts before those that only serve late devices, then the higher priority, then the newer. */
export function goesBefore(one: LiveRollout, other: LiveRollout): boolean {
  const rank = (live: LiveRollout): number =>
    live.state === "rolling_back" ? 2 : live.state === "succeeded" ? 0 : 1;
  if (rank(one) !== rank(other)) return rank(one) > rank(other);
  if (rank(one) === 1 && one.record.request.priority !== other.record.request.priority)
    return one.record.request.priority > other.record.request.priority;
  return isNewer(one, other);
}

export function isNewer(one: LiveRollout, other: LiveRollout): boolean {
  if (one.record.created !== other.record.created) return one.record.created > other.record.created;
  return one.id > other.id;
}

function describeRival({ live, entry }: Claim): string {
  return isBusy(entry)
    ? `rollout ${live.id} is changing it`
    : `it belongs to rollout ${live.id}, which goes first (priority ${live.record.request.priority})`;
}

function closedWindow(live: LiveRollout, device: FleetDevice, now: number): Obstacle | undefined {
  const { timeZone } = device.facts;
  const state = live.windows.state(timeZone, now);
  if (!state || state.open) return undefined;
  const opens = new Date(state.until).toISOString();
  return { reason: "window", detail: `its window opens at ${opens} (${timeZone})`, passes: true };
}

/** One more unavailable device of any of its sites would be too many. */
function overBudget(budgets: readonly SiteBudget[], device: FleetDevice, fleet: Fleet): Obstacle | undefined {
  for (const budget of budgets) {
    const value = device.tags[budget.tag];
    if (value === undefined) continue;
    const site = fleet.site(budget.tag, value);
    const most = budgetOf(budget, site.total);
    if (device.unavailable || site.unavailable < most) continue;
    return {
      reason: "budget",
      detail: `${budget.tag}=${value}: ${site.unavailable} of ${site.total} devices are unavailable, at most ${most} may be`,
      // Devices that are being changed come back; the wave does not wait for those that are simply gone.
      passes: site.changing > 0,
    };
  }
  return undefined;
}

/** Devices of a site that may be unavailable at once. */
export function budgetOf({ maxUnavailable }: SiteBudget, total: number): number {
  if ("count" in maxUnavailable) return maxUnavailable.count;
  return Math.max(1, Math.floor((total * maxUnavailable.percent) / 100));
}

/** Whether a device may be asked to return now: only changes in progress count, so that dead devices cannot keep a bad version running. */
export function mayRestore(
  budgets: readonly SiteBudget[],
  device: FleetDevice | undefined,
  fleet: Fleet,
): boolean {
  if (!device || device.unavailable) return true;
  return budgets.every((budget) => {
    const value = device.tags[budget.tag];
    if (value === undefined) return true;
    const site = fleet.site(budget.tag, value);
    return site.changing < budgetOf(budget, site.total);
  });
}
