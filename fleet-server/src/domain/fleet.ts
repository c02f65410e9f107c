import type { Facts } from "@fieldloop/protocol";
import type { GroupRecord } from "./groups.js";
import { runningWhere, type ReportedLane } from "./lanes.js";
import type { LiveRollout } from "./rollout-live.js";
import type { PackageRef, RolloutDevice } from "./rollout.js";

/** What is known of a device from its own reports and from operators. */
export interface FleetRecord {
  readonly device: string;
  readonly tags: Readonly<Record<string, string>>;
  /** Devices of a kind share one record: what is asked of facts is asked once per kind. */
  readonly facts: Facts;
  readonly suspended: boolean;
  readonly online: boolean;
  /** 0: never. */
  readonly lastSeen: number;
  readonly running: PackageRef | null;
  readonly lanes: readonly ReportedLane<PackageRef>[];
  /** The configuration that it says it applied. */
  readonly configId: string | null;
}

/** A rollout's interest in a device. */
export interface Claim {
  readonly live: LiveRollout;
  readonly entry: RolloutDevice;
}

/** One device in memory, with the rollouts that have to do with it. */
export class FleetDevice {
  readonly device: string;
  tags: Readonly<Record<string, string>>;
  facts: Facts;
  suspended: boolean;
  online: boolean;
  lastSeen: number;
  running: PackageRef | null;
  lanes: readonly ReportedLane<PackageRef>[];
  configId: string | null;
  readonly claims: Claim[] = [];
  /** Rollouts that are changing it now: asked and not settled, or asked to return. */
  changing = 0;

  constructor(record: FleetRecord) {
    this.device = record.device;
    this.tags = record.tags;
    this.facts = record.facts;
    this.suspended = record.suspended;
    this.online = record.online;
    this.lastSeen = record.lastSeen;
    this.running = record.running;
    this.lanes = record.lanes;
    this.configId = record.configId;
  }

  get deviceClass(): string {
    return this.facts.deviceClass;
  }

  /** Counts against the budget of its site, for whatever reason. */
  get unavailable(): boolean {
    return !this.online || this.suspended || this.changing > 0;
  }

  runningOf(model: string): PackageRef | null {
    return runningWhere(this, model);
  }
}

/** Devices with one value of a tag. */
export interface Site {
  total: number;
  unavailable: number;
  /** Those that rollouts are changing now. */
  changing: number;
}

/**
 * Every device of the fleet in memory, kept by changes: what ingest took in and operators set. Reading one is a look-up, asking how
 * a site stands is one too; nothing here is ever read again as a whole.
 */
export class Fleet {
  readonly #devices = new Map<string, FleetDevice>();
  readonly #sites = new Map<string, Map<string, Site>>();
  #dirty = new Set<FleetDevice>();
  groups: ReadonlyMap<string, GroupRecord> = new Map();
  /** Grows when a group changes. */
  groupsRevision = 0;

  get size(): number {
    return this.#devices.size;
  }

  get(device: string): FleetDevice | undefined {
    return this.#devices.get(device);
  }

  all(): IterableIterator<FleetDevice> {
    return this.#devices.values();
  }

  setGroups(groups: readonly GroupRecord[]): void {
    this.groups = new Map(groups.map((group) => [group.group, group]));
    this.groupsRevision++;
  }

  /** A device as it is now; unknown ones are added. */
  put(record: FleetRecord): FleetDevice {
    let device = this.#devices.get(record.device);
    if (device) {
      this.#count(device, -1);
      device.tags = record.tags;
      device.facts = record.facts;
      device.suspended = record.suspended;
      device.online = record.online;
      device.lastSeen = Math.max(device.lastSeen, record.lastSeen);
      device.running = record.running;
      device.lanes = record.lanes;
      device.configId = record.configId;
    } else {
      device = new FleetDevice(record);
      this.#devices.set(record.device, device);
    }
    this.#count(device, 1);
    this.#dirty.add(device);
    return device;
  }

  remove(id: string): void {
    const device = this.#devices.get(id);
    if (!device) return;
    this.#count(device, -1);
    this.#devices.delete(id);
    this.#dirty.delete(device);
  }

  seen(id: string, time: number): void {
    const device = this.#devices.get(id);
    if (!device || time <= device.lastSeen) return;
    // Only a device that was given up has to be looked at again because it said something.
    if (device.claims.some(({ entry }) => entry.state === "silent")) this.#dirty.add(device);
    device.lastSeen = time;
  }

  /** Something about it has to be looked at again at the next step. */
  touch(device: FleetDevice): void {
    this.#dirty.add(device);
  }

  /** @param by 1 when a rollout begins to change it, -1 when that is over */
  change(device: FleetDevice, by: 1 | -1): void {
    this.#count(device, -1);
    device.changing += by;
    this.#count(device, 1);
  }

  /** Devices that changed since the last call. */
  takeDirty(): ReadonlySet<FleetDevice> {
    const dirty = this.#dirty;
    this.#dirty = new Set();
    return dirty;
  }

  /** How many devices have this value of a tag, and how many of them are not available. */
  site(tag: string, value: string): Readonly<Site> {
    return this.#sitesOf(tag).get(value) ?? { total: 0, unavailable: 0, changing: 0 };
  }

  #sitesOf(tag: string): Map<string, Site> {
    let sites = this.#sites.get(tag);
    if (!sites) {
      // The first question about a tag counts once; changes keep it from then on.
      this.#sites.set(tag, (sites = new Map()));
      for (const device of this.#devices.values()) countAt(sites, device.tags[tag], device, 1);
    }
    return sites;
  }

  #count(device: FleetDevice, by: 1 | -1): void {
    for (const [tag, sites] of this.#sites) countAt(sites, device.tags[tag], device, by);
  }
}

function countAt(sites: Map<string, Site>, value: string | undefined, device: FleetDevice, by: 1 | -1): void {
  if (value === undefined) return;
  let site = sites.get(value);
  if (!site) sites.set(value, (site = { total: 0, unavailable: 0, changing: 0 }));
  site.total += by;
  if (device.unavailable) site.unavailable += by;
  if (device.changing > 0) site.changing += by;
}
