import type { HoldReason, RolloutDeviceCounts } from "@fieldloop/protocol";
import { hasFailed, type RolloutDevice } from "./rollout.js";

/** Counts of a wave's devices, kept by changes. */
export class Tally {
  total = 0;
  waiting = 0;
  updating = 0;
  active = 0;
  failed = 0;
  cancelled = 0;
  silent = 0;
  skipped = 0;
  restoring = 0;
  restored = 0;
  readonly holds = new Map<HoldReason, number>();
  /** Devices that were left to a newer rollout, by its id. */
  readonly superseders = new Map<string, number>();

  /** Asked, and without the version: what a gate counts as failed. */
  get lost(): number {
    return this.failed + this.cancelled;
  }

  /** @param by 1 to count a device as it is, -1 to take it out again before it changes */
  add(entry: RolloutDevice, by: number): void {
    this.total += by;
    this[groupOf(entry)] += by;
    if (entry.restore === "offered") this.restoring += by;
    if (entry.restore === "done") this.restored += by;
    if (entry.state === "waiting" && entry.hold) {
      const { reason } = entry.hold;
      this.holds.set(reason, (this.holds.get(reason) ?? 0) + by);
    }
    const superseder = entry.state === "skipped" ? entry.hold?.by : undefined;
    if (superseder !== undefined)
      this.superseders.set(superseder, (this.superseders.get(superseder) ?? 0) + by);
  }

  /** @param unheld why the waiting devices that nothing was found against still wait */
  view(unheld: HoldReason | null): RolloutDeviceCounts {
    const { total, waiting, updating, active, failed, cancelled, silent, skipped, restoring, restored } =
      this;
    const holds: Partial<Record<HoldReason, number>> = {};
    let held = 0;
    for (const [reason, count] of this.holds) {
      if (count > 0) holds[reason] = count;
      held += count;
    }
    if (unheld && waiting > held) holds[unheld] = (holds[unheld] ?? 0) + waiting - held;
    return {
      ...{ total, waiting, updating, active, failed, cancelled, silent, skipped },
      ...{ restoring, restored, holds },
    };
  }
}

type Group = "waiting" | "updating" | "active" | "failed" | "cancelled" | "silent" | "skipped";

function groupOf({ state }: RolloutDevice): Group {
  if (state === "waiting" || state === "active" || state === "silent" || state === "skipped") return state;
  if (state === "cancelled") return state;
  return hasFailed(state) ? "failed" : "updating";
}

/** Sums counts, for a rollout out of its waves. */
export function sumDeviceCounts(parts: readonly RolloutDeviceCounts[]): RolloutDeviceCounts {
  const sum: RolloutDeviceCounts = {
    total: 0,
    waiting: 0,
    updating: 0,
    active: 0,
    failed: 0,
    cancelled: 0,
    silent: 0,
    skipped: 0,
    restoring: 0,
    restored: 0,
    holds: {},
  };
  for (const part of parts) {
    for (const key of Object.keys(sum) as (keyof RolloutDeviceCounts)[]) {
      if (key !== "holds") sum[key] += part[key];
    }
    for (const [reason, count] of Object.entries(part.holds) as [HoldReason, number][])
      sum.holds[reason] = (sum.holds[reason] ?? 0) + count;
  }
  return sum;
}

/** Devices of all waves that newer rollouts took, by the id of each: most first. */
export function supersedersOf(tallies: readonly Tally[]): [rollout: string, devices: number][] {
  const sum = new Map<string, number>();
  for (const { superseders } of tallies)
    for (const [rollout, count] of superseders) sum.set(rollout, (sum.get(rollout) ?? 0) + count);
  return [...sum].filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
}
