import type { RolloutState } from "@fieldloop/protocol";
import type { Fleet, FleetDevice } from "./fleet.js";
import type { FitCheck } from "./compatibility.js";
import { isDynamic, targetKey, targetTest, type SelectableDevice } from "./groups.js";
import type { EvidenceSource } from "./rollout-evidence.js";
import { goesBefore, isNewer, type StepContext } from "./rollout-holds.js";
import { LiveRollout } from "./rollout-live.js";
import { noteMembers } from "./rollout-members.js";
import type { OfferBudget } from "./rollout-offers.js";
import { noteGivenBack, noteGone, noteReport, takeWord } from "./rollout-reports.js";
import { isLookDue, stepRollout } from "./rollout-step.js";
import { type DeploymentWord, type RolloutDevice, type RolloutRecord, type RolloutWave } from "./rollout.js";

/** What the engine asks of the world: all of it is in memory, nothing waits. */
export interface EngineSources extends EvidenceSource {
  /** Whether the package of a rollout fits a kind of device. */
  readonly fits: (live: LiveRollout) => FitCheck;
}

/** Offers and restores of one step of all rollouts: what bounds its time. */
const OFFERS_PER_STEP_MAX = 100;
/** Devices whose reports one step takes in; those of more wait for the next. */
const CHANGES_PER_STEP_MAX = 400;
/** States in which a rollout says what its target has. */
const SAYS: ReadonlySet<RolloutState> = new Set(["running", "paused", "succeeded"]);

/**
 * The rollouts of a fleet that still have something to do, stepped by changes: reports come in by device, time passes by the few that
 * are in progress, and who joins is looked at where a device or a group changed. Pure but for its memory: no clock, no store, no network.
 */
export class RolloutEngine {
  readonly fleet: Fleet;
  readonly #sources: EngineSources;
  readonly #live = new Map<string, LiveRollout>();
  readonly #targets = new WeakMap<
    LiveRollout,
    { revision: number; test: (device: SelectableDevice) => boolean }
  >();

  constructor(fleet: Fleet, sources: EngineSources) {
    this.fleet = fleet;
    this.#sources = sources;
  }

  get rollouts(): Iterable<LiveRollout> {
    return this.#live.values();
  }

  get(rollout: string): LiveRollout | undefined {
    return this.#live.get(rollout);
  }

  load(record: RolloutRecord, waves: readonly RolloutWave[], devices: Iterable<RolloutDevice>): LiveRollout {
    this.unload(record.rollout);
    const live = new LiveRollout(this.fleet, record, waves, devices);
    this.#live.set(live.id, live);
    for (const entry of live.devices.values()) {
      const device = this.fleet.get(entry.device);
      if (device) this.fleet.touch(device);
    }
    return live;
  }

  unload(rollout: string): void {
    this.#live.get(rollout)?.unload();
    this.#live.delete(rollout);
  }

  /** A device said how far a deployment is. */
  noteWord(rollout: string, device: string, attempt: number, word: DeploymentWord): void {
    const entry = this.#live.get(rollout)?.devices.get(device);
    // What it says about an earlier attempt is history.
    if (!entry || entry.attempt !== attempt) return;
    takeWord(entry, word);
    const known = this.fleet.get(device);
    if (known) this.fleet.touch(known);
  }

  /** A device was deleted. */
  noteRemoved(id: string, now: number): void {
    const device = this.fleet.get(id);
    for (const { live, entry } of [...(device?.claims ?? [])]) noteGone(live, entry, now);
    this.fleet.remove(id);
  }

  /** Rollouts whose gate is judged at the next step. */
  looksDue(now: number): LiveRollout[] {
    return [...this.#live.values()].filter((live) => isLookDue(live, now));
  }

  /** One step of all rollouts; their journals say what it changed. @returns whether it left something over that can be done at once */
  step(now: number): boolean {
    this.#noteChanges(now);
    const context: StepContext = {
      fleet: this.fleet,
      fits: (live) => this.#sources.fits(live),
      now,
    };
    const budget: OfferBudget = { left: OFFERS_PER_STEP_MAX };
    // Who goes first is served first: what it takes, nobody else offers in the same step.
    const order = [...this.#live.values()].sort((a, b) => (goesBefore(a, b) ? -1 : 1));
    for (const live of order) {
      const before = live.state;
      stepRollout(live, context, this.#sources, budget);
      if (before !== live.state) this.#noteMove(live);
    }
    return this.fleet.isDirty || budget.left <= 0;
  }

  /** An operator's action moved it: what follows for other rollouts follows at once. */
  noteMove(live: LiveRollout): void {
    this.#noteMove(live);
  }

  /** The newest rollout with the same target and place that is newer, and has begun and is not taken back. */
  successorOf(live: LiveRollout): LiveRollout | undefined {
    const key = targetKey(live.record.request.target);
    let newest: LiveRollout | undefined;
    for (const other of this.#live.values()) {
      if (key === null || other.slot !== live.slot || !SAYS.has(other.state)) continue;
      if (!isNewer(other, newest ?? live) || targetKey(other.record.request.target) !== key) continue;
      newest = other;
    }
    return newest;
  }

  #noteChanges(now: number): void {
    const dirty = this.fleet.takeDirty(CHANGES_PER_STEP_MAX);
    for (const device of dirty) {
      for (const { live, entry } of device.claims) {
        noteReport(live, entry, device, now);
        // It may be asked now; the step says so, or finds another reason.
        if (entry.state === "waiting" && entry.hold && device.online && entry.hold.reason === "offline")
          live.hold(entry, null);
      }
      // After all of them have heard it: what one of them lost may be another's again.
      for (const { live, entry } of device.claims) noteGivenBack(live, entry, device, now);
    }
    for (const live of this.#live.values()) this.#noteMembers(live, dirty, now);
  }

  #noteMembers(live: LiveRollout, dirty: Iterable<FleetDevice>, now: number): void {
    const { target } = live.record.request;
    const known = this.#targets.get(live);
    const { groupsRevision } = this.fleet;
    const regrouped = known?.revision !== groupsRevision;
    const test = regrouped ? targetTest(target, this.fleet.groups) : known!.test;
    if (regrouped) this.#targets.set(live, { revision: groupsRevision, test });
    const dynamic = isDynamic(target);
    for (const device of dirty) {
      const entry = live.devices.get(device.device);
      if (entry) live.claim(device, entry);
    }
    if (dynamic) noteMembers(live, regrouped ? this.fleet.all() : dirty, test, now);
  }

  /** Of the rollouts with the same target and place, the newest that is not taken back is the one that counts. */
  #noteMove(live: LiveRollout): void {
    const key = targetKey(live.record.request.target);
    if (key === null || (live.state !== "running" && live.state !== "succeeded")) return;
    for (const other of this.#live.values()) {
      if (other === live || other.slot !== live.slot || other.record.supersededBy !== null) continue;
      if (other.state !== "succeeded" || other.record.created > live.record.created) continue;
      if (targetKey(other.record.request.target) === key)
        other.set({ supersededBy: live.id, current: false });
    }
  }
}
