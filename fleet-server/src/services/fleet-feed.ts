import type { LiveEvent } from "@fieldloop/protocol";
import { Fleet } from "../domain/fleet.js";
import type { DeviceStore } from "../store/devices.js";
import type { FleetStore } from "../store/fleet.js";

export interface FleetFeedOptions {
  readonly store: FleetStore;
  readonly groups: Pick<DeviceStore, "groups">;
}

/** Keeps the engine's picture of the fleet: all devices once, then those that something happened to. */
export class FleetFeed {
  readonly fleet = new Fleet();
  readonly #options: FleetFeedOptions;
  #changed = new Set<string>();
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

  /** Brings the picture up to what is stored now. */
  async catchUp(): Promise<void> {
    if (this.#regrouped) {
      this.#regrouped = false;
      this.fleet.setGroups(await this.#options.groups.groups());
    }
    if (this.#changed.size === 0) return;
    const changed = [...this.#changed];
    this.#changed = new Set();
    for (const record of await this.#options.store.these(changed)) this.fleet.put(record);
  }
}
