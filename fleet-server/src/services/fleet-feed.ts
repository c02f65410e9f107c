import type { LiveEvent } from "@fieldloop/protocol";
import { Fleet } from "../domain/fleet.js";
import type { DeviceStore } from "../store/devices.js";
import type { FleetStore } from "../store/fleet.js";

export interface FleetFeedOptions {
  readonly store: FleetStore;
  readonly groups: Pick<DeviceStore, "groups">;
}

/** Devices read again in one step. */
const CHANGES_AT_ONCE = 400;

/** Keeps the engine's picture of the fleet: all devices once, then those that something happened to. */
export class FleetFeed {
  readonly fleet = new Fleet();
  readonly #options: FleetFeedOptions;
  readonly #changed = new Set<string>();
  #regrouped = true;

  constructor(options: FleetFeedOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    for await (const page of this.#options.store.all()) for (const record of page) this.fleet.put(record);
    await this.catchUp();
  }

  /** Something about a device was written: it is read again at the next step. */
  note({ type, id }: LiveEvent): void {
    if (type === "device") this.#changed.add(id);
  }

  noteGroups(): void {
    this.#regrouped = true;
  }

  seen(devices: ReadonlyMap<string, number>): void {
    for (const [device, time] of devices) this.fleet.seen(device, time);
  }

  /** Brings the picture up to what is stored now, of many devices a part. @returns whether some are left */
  async catchUp(): Promise<boolean> {
    if (this.#regrouped) await this.#regroup();
    if (this.#changed.size === 0) return false;
    const changed: string[] = [];
    for (const device of this.#changed) {
      if (changed.length >= CHANGES_AT_ONCE) break;
      changed.push(device);
      this.#changed.delete(device);
    }
    try {
      for (const record of await this.#options.store.these(changed)) this.fleet.put(record);
    } catch (error) {
      // The store could not be read: what happened to them is still to be read.
      for (const device of changed) this.#changed.add(device);
      throw error;
    }
    return this.#changed.size > 0;
  }

  async #regroup(): Promise<void> {
    this.#regrouped = false;
    try {
      this.fleet.setGroups(await this.#options.groups.groups());
    } catch (error) {
      this.#regrouped = true;
      throw error;
    }
  }
}
