import {
  canTransition,
  ROLLOUT,
  WAVE,
  type DecidedBy,
  type GateVerdict,
  type RolloutState,
  type WaveState,
} from "@fieldloop/protocol";
import type { Fleet, FleetDevice } from "./fleet.js";
import { isNews } from "./gate-news.js";
import { GATE, Journal, type DevicesWhat } from "./rollout-journal.js";
import { Pace } from "./rollout-pace.js";
import { Round } from "./round.js";
import { Tally } from "./rollout-tally.js";
import {
  hasFailed,
  isBusy,
  isInProgress,
  slotOf,
  type RolloutDevice,
  type RolloutRecord,
  type RolloutWave,
} from "./rollout.js";
import { Windows } from "./windows.js";

/**
 * A rollout that the engine works on, with indexes kept by changes: everything that changes a record goes through here, so that
 * counts, sets and the journal are right at any time. A change that the state machines do not allow is a defect, and thrown.
 */
export class LiveRollout {
  readonly record: RolloutRecord;
  readonly waves: readonly RolloutWave[];
  readonly devices = new Map<string, RolloutDevice>();
  /** Each wave's devices in the order in which they are asked; index 0 is wave 1. */
  readonly members: readonly Set<RolloutDevice>[];
  readonly tallies: readonly Tally[];
  /** Asked and not settled, of any wave, and not asked to return. */
  readonly inProgress = new Set<RolloutDevice>();
  /** Waiting though their wave has passed: held up then, returned or joined since. */
  readonly late = new Set<RolloutDevice>();
  /** Asked to return and not proven back. */
  readonly restoring = new Set<RolloutDevice>();
  /** By wave as `members`: asked, and looked at one by one by its gate. Of a large wave the first that were asked, a sample. */
  readonly watched: readonly Set<RolloutDevice>[];
  /** Who the open wave is compared with. */
  readonly compared = new Set<RolloutDevice>();
  /** Of the open wave, in memory only: its latest look, and whether a device has failed or fallen silent since. */
  readonly lately = { look: 0, failed: false };
  /** Where the steps are that look at a part of a large set each. */
  readonly rounds: {
    readonly inProgress: Round<RolloutDevice>;
    readonly late: Round<RolloutDevice>;
    readonly members: readonly Round<RolloutDevice>[];
    readonly waiting: readonly Round<RolloutDevice>[];
  };
  readonly pace: Pace;
  readonly windows: Windows;
  readonly slot: string;
  journal = new Journal();
  readonly #fleet: Fleet;

  constructor(
    fleet: Fleet,
    record: RolloutRecord,
    waves: readonly RolloutWave[],
    devices: Iterable<RolloutDevice>,
  ) {
    this.#fleet = fleet;
    this.record = record;
    this.waves = waves;
    this.windows = new Windows(record.request.schedule.windows);
    this.slot = slotOf(record.subject);
    this.members = waves.map(() => new Set());
    this.watched = waves.map(() => new Set());
    this.rounds = {
      inProgress: new Round(this.inProgress),
      late: new Round(this.late),
      members: this.members.map((members) => new Round(members)),
      waiting: this.members.map((members) => new Round(members)),
    };
    this.tallies = waves.map(() => new Tally());
    this.pace = new Pace(record.request.offersPerMinute);
    for (const entry of devices) this.#index(entry);
  }

  get id(): string {
    return this.record.rollout;
  }
  get state(): RolloutState {
    return this.record.state;
  }

  /** The wave that is not passed yet; undefined when all are. */
  get openWave(): RolloutWave | undefined {
    return this.waves.find((wave) => wave.state !== "passed");
  }

  /** UTC where the device is not known. */
  timeZoneOf(device: string): string {
    return this.#fleet.get(device)?.facts.timeZone ?? "UTC";
  }

  /** As the fleet knows it; undefined once it was deleted. */
  deviceOf({ device }: RolloutDevice): FleetDevice | undefined {
    return this.#fleet.get(device);
  }

  /** Gives the device back: nothing of this rollout holds it any longer. */
  unload(): void {
    for (const entry of this.devices.values()) {
      const device = this.#fleet.get(entry.device);
      if (device) this.#release(device, entry);
    }
  }

  add(entry: RolloutDevice): void {
    this.#index(entry);
    this.journal.added.add(entry);
  }

  /** Its device came into the fleet after the rollout was loaded. */
  claim(device: FleetDevice, entry: RolloutDevice): void {
    if (device.claims.some((claim) => claim.entry === entry)) return;
    device.claims.push({ live: this, entry });
    if (isBusy(entry)) this.#fleet.change(device, 1);
  }

  change(entry: RolloutDevice, patch: Partial<Omit<RolloutDevice, "device" | "position" | "wave">>): void {
    const tally = this.tallies[entry.wave - 1]!;
    const was = isBusy(entry);
    tally.add(entry, -1);
    Object.assign(entry, patch);
    tally.add(entry, 1);
    this.#place(entry);
    const is = isBusy(entry);
    const device = this.#fleet.get(entry.device);
    if (device && was !== is) this.#fleet.change(device, is ? 1 : -1);
    // The rollout that it was taken from may have it again.
    if (device && device.claims.length > 1 && (entry.restore !== "none" || hasFailed(entry.state)))
      this.#fleet.touch(device);
    this.journal.devices.add(entry);
  }

  /** Why it waits; a reason that stands is not written again. */
  hold(entry: RolloutDevice, hold: RolloutDevice["hold"]): void {
    if (entry.hold?.reason === hold?.reason && entry.hold?.detail === hold?.detail) return;
    this.change(entry, { hold });
  }

  /** Each of the pairs changes waves; the order within a wave stays that of the plan. */
  exchange(pairs: readonly (readonly [RolloutDevice, RolloutDevice])[]): void {
    const touched = new Set<number>();
    for (const [one, other] of pairs) {
      const wave = one.wave;
      touched.add(wave).add(other.wave);
      this.#move(one, other.wave);
      this.#move(other, wave);
    }
    for (const wave of touched) {
      const members = this.members[wave - 1]!;
      const ordered = [...members].sort((a, b) => a.position - b.position);
      members.clear();
      for (const entry of ordered) members.add(entry);
    }
  }

  note(what: DevicesWhat, actor: string, entry: RolloutDevice): void {
    if (what === "failed" || what === "silent") this.lately.failed = true;
    this.journal.note(what, actor, entry);
  }

  moveRollout(state: RolloutState, reason: string | null, actor: string, now: number): void {
    const { record } = this;
    demand(canTransition(ROLLOUT, record.state, state), `rollout ${record.state} → ${state}`);
    const over = state === "succeeded" || state === "aborted" || state === "rolled_back";
    record.state = state;
    record.reason = reason;
    record.started ??= state === "running" ? now : null;
    record.finished = over ? now : null;
    record.current = state === "succeeded";
    this.journal.rollout = true;
    this.journal.write({ type: "rollout", actor, state, reason });
  }

  /** Fields of the rollout that are no state. */
  set(patch: Partial<Pick<RolloutRecord, "approved" | "current" | "supersededBy" | "reason">>): void {
    Object.assign(this.record, patch);
    this.journal.rollout = true;
  }

  moveWave(wave: RolloutWave, state: WaveState, actor: string, now: number): void {
    demand(canTransition(WAVE, wave.state, state), `wave ${wave.wave} ${wave.state} → ${state}`);
    const again = state === "running" && wave.started !== null;
    const begins = state === "running" || (state === "soaking" && wave.soakStarted === null);
    wave.state = state;
    wave.started ??= now;
    wave.soakStarted = again ? null : (wave.soakStarted ?? (state === "soaking" ? now : null));
    if (begins) wave.watchedSince = now;
    if (state === "running" || state === "soaking") wave.nextLook = now;
    wave.finished = state === "passed" || state === "failed" ? now : null;
    if (state === "passed") for (const entry of this.members[wave.wave - 1]!) this.#place(entry);
    this.journal.waves.add(wave);
    this.journal.write({ type: "wave", actor, wave: wave.wave, state });
  }

  setWave(
    wave: RolloutWave,
    patch: { watchedSince?: number; nextLook?: number; approved?: DecidedBy; forced?: DecidedBy },
  ): void {
    Object.assign(wave, patch);
    this.journal.waves.add(wave);
  }

  /** A look at the gate, kept for ever. */
  judged(wave: RolloutWave, verdict: GateVerdict, nextLook: number): void {
    const repeats = !isNews(verdict, wave.verdict, wave.watchedSince);
    wave.looks++;
    wave.verdict = verdict;
    wave.nextLook = nextLook;
    this.journal.waves.add(wave);
    const entry = { type: "verdict", actor: GATE, wave: wave.wave, look: wave.looks, verdict } as const;
    this.journal.write(entry);
    if (repeats) this.journal.repeats.add(entry);
  }

  /** Hands over what changed since the last call. */
  takeJournal(): Journal {
    const { journal } = this;
    this.journal = new Journal();
    return journal;
  }

  #move(entry: RolloutDevice, wave: number): void {
    this.tallies[entry.wave - 1]!.add(entry, -1);
    this.members[entry.wave - 1]!.delete(entry);
    if (this.watched[entry.wave - 1]!.delete(entry)) this.watched[wave - 1]!.add(entry);
    entry.wave = wave;
    this.members[wave - 1]!.add(entry);
    this.tallies[wave - 1]!.add(entry, 1);
    this.#place(entry);
    this.journal.devices.add(entry);
  }

  #index(entry: RolloutDevice): void {
    this.devices.set(entry.device, entry);
    this.members[entry.wave - 1]!.add(entry);
    this.tallies[entry.wave - 1]!.add(entry, 1);
    this.#place(entry);
    if (entry.offered !== null) this.pace.note(entry.offered);
    if (entry.restoreOffered !== null) this.pace.note(entry.restoreOffered);
    if (entry.watch) (entry.offered === null ? this.compared : this.watched[entry.wave - 1]!).add(entry);
    const device = this.#fleet.get(entry.device);
    if (device) this.claim(device, entry);
  }

  #place(entry: RolloutDevice): void {
    const passed = this.waves[entry.wave - 1]!.state === "passed";
    put(this.inProgress, entry, entry.restore === "none" && isInProgress(entry.state));
    put(this.late, entry, entry.state === "waiting" && passed);
    put(this.restoring, entry, entry.restore === "offered");
  }

  #release(device: FleetDevice, entry: RolloutDevice): void {
    const at = device.claims.findIndex((claim) => claim.entry === entry);
    if (at === -1) return;
    device.claims.splice(at, 1);
    if (isBusy(entry)) this.#fleet.change(device, -1);
    this.#fleet.touch(device);
  }
}

function put<Item>(set: Set<Item>, item: Item, inside: boolean): void {
  if (inside) set.add(item);
  else set.delete(item);
}

function demand(condition: boolean, what: string): void {
  if (!condition) throw new Error(`Change rollout: ${what} is not allowed`);
}
