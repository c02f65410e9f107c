import {
  rolloutRequestSchema,
  type DeploymentState,
  type ErrorCode,
  type Facts,
  type RolloutAction,
  type RolloutSubject,
} from "@fieldloop/protocol";
import { Fleet } from "./fleet.js";
import { targetTest } from "./groups.js";
import { laneFor, type ReportedLane } from "./lanes.js";
import type { DeviceStats } from "./gate-evidence.js";
import { act, type Actor, type Refusal } from "./rollout-actions.js";
import { RolloutEngine } from "./rollout-engine.js";
import type { Journal } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import {
  isBusy,
  type PackageRef,
  type RolloutDevice,
  type RolloutRecord,
  type RolloutWave,
} from "./rollout.js";
import { planWaves } from "./waves.js";

export const FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "test",
  cpuCount: 2,
  cpuFlags: [],
  memoryBytes: 1 << 30,
  executionProviders: ["cpu"],
  nodeVersion: "20.20.2",
  runtimeVersion: "1.30.0",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};

export const packageOf = (version: number, model = "parts"): PackageRef => ({
  model,
  version,
  packageSha256: version.toString(16).padStart(64, "0"),
});

/** How a device takes an offer; seconds from one state to the next. */
export interface Behaviour {
  readonly stepSeconds: number;
  readonly ends: "active" | "failed" | "rolled_back" | "mute" | "stuck";
  readonly errorCode?: ErrorCode;
}
const GOOD: Behaviour = { stepSeconds: 2, ends: "active" };
const PATH: readonly DeploymentState[] = [
  "downloading",
  "verifying",
  "self_testing",
  "activating",
  "probation",
];

interface Pending {
  at: number;
  readonly rollout: string;
  readonly attempt: number;
  readonly purpose: "offer" | "restore";
  readonly subject: RolloutSubject;
  /** Index in the path; beyond it: the end. */
  step: number;
}

/** What a lane of a device, or its configuration, was told last. */
export type Assigned = Pick<Pending, "rollout" | "attempt" | "purpose" | "subject">;

export interface WorldDevice {
  readonly device: string;
  tags: Record<string, string>;
  facts: Facts;
  online: boolean;
  suspended: boolean;
  running: PackageRef | null;
  /** Of a device with several: each for a model. */
  lanes: readonly ReportedLane<PackageRef>[];
  configId: string | null;
  /** Its desired state, by lane, and `config`. */
  readonly desired: Map<string, Assigned>;
  /** What it is at, by place: each lane goes its own way. */
  readonly pending: Map<string, Pending>;
  muted: boolean;
}

export interface WorldOptions {
  readonly behaviour?: (device: string, subject: RolloutSubject, attempt: number) => Behaviour;
  readonly during?: (
    live: LiveRollout,
    entry: RolloutDevice,
    arm: "canary" | "control",
    now: number,
  ) => DeviceStats;
  readonly misfits?: ReadonlySet<string>;
}

export function statsOf(predictions: number, change: Partial<DeviceStats> = {}): DeviceStats {
  return {
    predictions,
    seconds: predictions,
    latencyMs: { count: predictions, mean: 5, m2: predictions },
    confidence: { count: predictions, mean: 0.9, m2: predictions / 100 },
    classes: { bar: predictions },
    crashes: 0,
    feedback: { successes: 0, count: 0 },
    ...change,
  };
}

/** A fleet without a server: devices that do what they are told, time that only tests move, and an engine between them. */
export class World {
  now = 1_000_000_000;
  readonly devices = new Map<string, WorldDevice>();
  readonly #options: WorldOptions;
  fleet = new Fleet();
  engine: RolloutEngine;
  /** What each step wrote down, newest last. */
  readonly journals: { rollout: string; journal: Journal }[] = [];
  offers: { device: string; rollout: string; attempt: number; time: number }[] = [];
  /** What was taken back from devices. */
  readonly restores: { device: string; time: number }[] = [];
  /** Offers that another rollout's restore took the place of, as they stood then. */
  readonly overwritten: { device: string; by: LiveRollout; offer: LiveRollout; entry: RolloutDevice }[] = [];
  #rollouts = 0;

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    this.engine = this.#makeEngine();
  }

  add(device: string, change: Partial<Omit<WorldDevice, "device">> = {}): WorldDevice {
    const added: WorldDevice = {
      device,
      tags: {},
      facts: FACTS,
      online: true,
      suspended: false,
      running: packageOf(1),
      lanes: [],
      configId: null,
      desired: new Map(),
      pending: new Map(),
      muted: false,
      ...change,
    };
    this.devices.set(device, added);
    this.tell(added);
    this.fleet.seen(device, this.now);
    return added;
  }

  /** A device's own report and what operators said of it, as the server knows them. */
  tell(device: WorldDevice, lastSeen = device.muted || !device.online ? 0 : this.now): void {
    const { device: id, tags, facts, online, suspended, running, lanes, configId } = device;
    this.fleet.put({
      device: id,
      tags,
      facts,
      online,
      suspended,
      running,
      configId,
      lanes,
      lastSeen,
    });
  }

  change(id: string, change: Partial<Omit<WorldDevice, "device">>): void {
    const device = this.devices.get(id)!;
    Object.assign(device, change);
    this.tell(device);
  }

  /** A rollout of parts@2 over all devices, begun unless told otherwise. */
  create(
    request: Record<string, unknown> = {},
    subject: RolloutSubject = { kind: "package", ...packageOf(2) },
  ): LiveRollout {
    const change =
      subject.kind === "package"
        ? { kind: "package", model: subject.model, version: subject.version }
        : { kind: "config", policy: subject.policy };
    const parsed = rolloutRequestSchema.parse({
      change,
      target: { group: "all" },
      ...request,
      gate: {
        silenceSeconds: 30,
        soakSeconds: 10,
        waveTimeoutSeconds: 120,
        predictionsMin: 10,
        accuracyDropMax: null,
        latencyRatioMax: null,
        ...(request["gate"] as object | undefined),
      },
    });
    const rollout = `rol_${++this.#rollouts}`;
    const inTarget = targetTest(parsed.target, this.fleet.groups);
    const target = [...this.fleet.all()].filter(inTarget);
    const { waves, devices } = planWaves(rollout, target, parsed);
    const record: RolloutRecord = {
      rollout,
      subject,
      request: parsed,
      created: this.now + this.#rollouts,
      createdBy: "ann",
      creator: "ann",
      from: null,
      state: "draft",
      reason: null,
      started: null,
      finished: null,
      approved: null,
      current: false,
      supersededBy: null,
      revision: 1,
    };
    const live = this.engine.load(record, waves, devices);
    if (parsed.start) this.act(live, { action: "start", reason: "" });
    return live;
  }

  act(live: LiveRollout, action: RolloutAction, actor: string | Actor = "ann"): Refusal {
    const who = typeof actor === "string" ? { name: actor, person: actor, sponsor: actor } : actor;
    const refusal = act(live, action, who, this.now);
    if (refusal === undefined) this.engine.noteMove(live);
    this.#carryOut();
    return refusal;
  }

  /** Time passes in steps of `everySeconds`; devices and engine go on in each. */
  advance(seconds: number, everySeconds = 1): void {
    for (let passed = 0; passed < seconds; passed += everySeconds) {
      this.now += everySeconds * 1000;
      for (const device of this.devices.values()) this.#live(device);
      this.engine.step(this.now);
      this.#carryOut();
    }
  }

  /** Until a rollout's state or, at most, that long. @returns the state */
  until(live: LiveRollout, done: (live: LiveRollout) => boolean, secondsMax = 3_600): string {
    for (let passed = 0; passed < secondsMax && !done(this.engine.get(live.id) ?? live); passed++)
      this.advance(1);
    return (this.engine.get(live.id) ?? live).state;
  }

  /** The server dies and comes back: only what is stored, and what devices say again, is known. */
  restart(): void {
    const stored = [...this.engine.rollouts].map((live) =>
      structuredClone({ record: live.record, waves: live.waves, devices: [...live.devices.values()] }),
    );
    const before = this.fleet;
    this.fleet = new Fleet();
    this.fleet.setGroups([...before.groups.values()]);
    for (const device of this.devices.values()) this.tell(device, before.get(device.device)!.lastSeen);
    this.engine = this.#makeEngine();
    for (const { record, waves, devices } of stored)
      this.engine.load(record as RolloutRecord, waves as RolloutWave[], devices as RolloutDevice[]);
  }

  #makeEngine(): RolloutEngine {
    const { during, misfits } = this.#options;
    return new RolloutEngine(this.fleet, {
      during:
        during ??
        ((_live, entry, _arm, now) =>
          statsOf(Math.max(0, (now - (entry.offered ?? entry.watch?.since ?? now)) / 1000) * 10)),
      shadow: () => null,
      fits: () => (facts) =>
        misfits?.has(facts.cpuModel)
          ? { code: "package_incompatible", reason: "memory", message: "does not fit" }
          : undefined,
    });
  }

  /** What the service does after a step: stores (here nothing), then tells the devices. */
  #carryOut(): void {
    for (const live of this.engine.rollouts) {
      const journal = live.takeJournal();
      if (journal.empty) continue;
      this.journals.push({ rollout: live.id, journal });
      for (const entry of [...journal.compared, ...journal.watched])
        entry.watch = { since: this.now, before: statsOf(1000) };
      for (const entry of journal.offers) {
        const { device, attempt } = entry;
        this.offers.push({ device, rollout: live.id, attempt, time: this.now });
        this.#assign(device, live.id, attempt, "offer", live.record.subject, entry.state === "offered");
      }
      for (const { device, attempt } of journal.withdrawals) {
        const told = this.devices.get(device)!;
        for (const [place, { rollout, purpose, ...one }] of told.desired)
          if (rollout === live.id && purpose === "offer" && one.attempt === attempt)
            told.desired.delete(place);
        for (const [place, one] of told.pending)
          if (one.rollout === live.id && one.attempt === attempt) told.pending.delete(place);
      }
      for (const { device, previous, attempt } of journal.restores) {
        this.restores.push({ device, time: this.now });
        const subject =
          previous!.kind === "package"
            ? previous!
            : { kind: "config" as const, configId: previous!.configId as string, policy: {} };
        this.#assign(device, live.id, attempt, "restore", subject);
      }
    }
  }

  /** @param isNew false where the device has it already */
  #assign(
    id: string,
    rollout: string,
    attempt: number,
    purpose: "offer" | "restore",
    subject: RolloutSubject,
    isNew = true,
  ): void {
    const device = this.devices.get(id)!;
    const place = placeOf(device, subject);
    const told = device.desired.get(place);
    if (purpose === "restore" && told?.purpose === "offer" && told.rollout !== rollout) {
      const [by, offer] = [this.engine.get(rollout)!, this.engine.get(told.rollout)];
      // One that is over and gone from memory is told of by what its device has.
      if (offer) this.overwritten.push({ device: id, by, offer, entry: { ...offer.devices.get(id)! } });
    }
    device.desired.set(place, { rollout, attempt, purpose, subject });
    device.pending.delete(place);
    if (!isNew) return;
    device.pending.set(place, { at: this.now + 1000, rollout, attempt, purpose, subject, step: 0 });
  }

  #live(device: WorldDevice): void {
    if (!device.online || device.suspended) return;
    for (const [place, pending] of device.pending)
      if (this.now >= pending.at) this.#progress(device, place, pending);
    if (!device.muted) this.fleet.seen(device.device, this.now);
  }

  #progress(device: WorldDevice, place: string, pending: Pending): void {
    const { subject } = pending;
    const how =
      pending.purpose === "offer"
        ? (this.#options.behaviour?.(device.device, subject, pending.attempt) ?? GOOD)
        : GOOD;
    if (subject.kind === "config") {
      device.configId = subject.configId;
      device.pending.delete(place);
      this.tell(device);
      return;
    }
    const path = how.ends === "failed" ? PATH.slice(0, 3) : PATH;
    if (pending.step < path.length) {
      if (how.ends === "stuck" && pending.step === 1) return;
      this.#say(device, pending, path[pending.step]!);
      pending.step++;
      pending.at = this.now + how.stepSeconds * 1000;
      return;
    }
    device.pending.delete(place);
    if (how.ends === "mute") device.muted = true;
    else if (how.ends === "active") {
      const { model, version, packageSha256 } = subject;
      const running = { model, version, packageSha256 };
      if (device.lanes.length === 0) device.running = running;
      else device.lanes = device.lanes.map((lane) => (lane.name === place ? { ...lane, running } : lane));
      device.muted = false;
      this.tell(device);
      this.#say(device, pending, "active");
    } else if (how.ends !== "stuck") this.#say(device, pending, how.ends, how.errorCode);
  }

  #say(
    device: WorldDevice,
    pending: Pending,
    state: DeploymentState,
    errorCode: ErrorCode = "self_test_failed",
  ): void {
    if (pending.purpose !== "offer") return;
    const failed = state === "failed" || state === "rolled_back";
    this.engine.noteWord(pending.rollout, device.device, pending.attempt, {
      state,
      errorCode: failed ? errorCode : null,
      errorMessage: failed ? "golden case 1" : null,
    });
  }
}

/** What a rollout of this changes on a device: one of its lanes, or `config`. */
export function placeOf({ lanes }: Pick<WorldDevice, "lanes">, subject: RolloutSubject): string {
  return subject.kind === "config" ? "config" : laneFor(lanes, subject.model);
}

/** What a device has in a rollout's place: a package's hash, or a configuration's id. */
export function hasThere(device: WorldDevice, subject: RolloutSubject): string | null {
  if (subject.kind === "config") return device.configId;
  const lane = device.lanes.find(({ name }) => name === placeOf(device, subject));
  return (lane ? lane.running : device.running)?.packageSha256 ?? null;
}

/** Rollouts that are changing a device now. */
export function busyWith(world: World, device: string): string[] {
  return (world.fleet.get(device)?.claims ?? [])
    .filter(({ entry }) => isBusy(entry))
    .map(({ live }) => live.id);
}
