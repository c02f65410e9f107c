import {
  FieldloopError,
  type DeviceDetail,
  type DeviceSummary,
  type Group,
  type Page,
} from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import { active, conflictWarning } from "../domain/identity.js";
import { wilson } from "../domain/intervals.js";
import { SERVER_LIMITS } from "../limits.js";
import type { DeploymentStore } from "../store/deployments.js";
import type { DeviceRecord, DeviceStore, Tags } from "../store/devices.js";
import type { DesiredService } from "./desired.js";
import type { LiveHub } from "./live.js";
import { EVERY_DEVICE, isMember } from "../domain/groups.js";
import type { RateMeter } from "./rates.js";
import type { TelemetryService } from "./telemetry.js";

export interface DeviceServiceOptions {
  readonly devices: DeviceStore;
  readonly deployments: DeploymentStore;
  readonly desired: DesiredService;
  readonly telemetry: TelemetryService;
  readonly rates: RateMeter;
  readonly live: LiveHub;
  readonly clock: Clock;
  /** Nothing heard for this long from a device that should be online: `silent`. */
  readonly silenceMs: number;
  /** Ends the connection of a device that lost its right to one. */
  readonly disconnect: (device: string) => void;
  /** Groups were made, changed or forgotten. */
  readonly onGroups?: () => void;
}

/** Who is meant: a group by name, or devices by id. */
export type DeviceTarget = { readonly group: string } | { readonly devices: readonly string[] };

const ACCURACY_WINDOW_MS = 600_000;

/** Devices as the API shows them, their tags and groups. */
export class DeviceService {
  readonly #options: DeviceServiceOptions;

  constructor(options: DeviceServiceOptions) {
    this.#options = options;
  }

  /** One page in the order of ids; the cursor is the last id. */
  async list(cursor: string | undefined, limit: number): Promise<Page<DeviceSummary>> {
    const records = await this.#options.devices.list(
      cursor ?? "",
      Math.min(limit, SERVER_LIMITS.listItemsMax),
    );
    return {
      items: await this.#summaries(records),
      next: records.length === limit ? records.at(-1)!.device : null,
    };
  }

  /** @throws FieldloopError `not_found` */
  async summary(device: string): Promise<DeviceSummary> {
    return (await this.#summaries([await this.record(device)]))[0]!;
  }

  /** @throws FieldloopError `not_found` */
  async detail(device: string): Promise<DeviceDetail> {
    const record = await this.record(device);
    const [summary, desired, deployments] = await Promise.all([
      this.#summaries([record]),
      this.#options.desired.current(device),
      this.#options.deployments.ofDevice(device),
    ]);
    return {
      ...summary[0]!,
      state: record.state,
      desiredRevision: desired?.revision ?? 0,
      deployments: deployments.map(
        ({ deployment, rollout, model, version, state, errorCode, errorMessage, updated }) => ({
          deployment,
          rollout,
          model,
          version,
          state,
          errorCode,
          errorMessage,
          updated,
        }),
      ),
    };
  }

  /** The device as stored. @throws FieldloopError `not_found` */
  async record(device: string): Promise<DeviceRecord> {
    const record = await this.#options.devices.get(device);
    if (!record) throw new FieldloopError("not_found", `Find device: there is no "${device}"`);
    return record;
  }

  /** Worst thing that is wrong with a device now. */
  health(
    record: Pick<DeviceRecord, "online" | "lastSeen" | "warnings" | "conflict">,
  ): DeviceSummary["health"] {
    const { clock, silenceMs } = this.#options;
    // Two agents take the connection from each other: whether it is there at the moment says nothing.
    if (active(record.conflict, clock.now())) return "error";
    if (record.lastSeen !== null && !record.online) return "offline";
    if (record.lastSeen === null || clock.now() - record.lastSeen > silenceMs) return "silent";
    if (record.warnings.some((warning) => warning.severity === "error")) return "error";
    return record.warnings.some((warning) => warning.severity === "warning") ? "warning" : "ok";
  }

  /** What the device says of itself, and what only the server can see. */
  #warnings({ warnings, conflict }: Pick<DeviceRecord, "warnings" | "conflict">): DeviceRecord["warnings"] {
    const seen = active(conflict, this.#options.clock.now());
    return seen ? [conflictWarning(seen), ...warnings] : warnings;
  }

  async setTags(device: string, tags: Tags): Promise<DeviceSummary> {
    if (!(await this.#options.devices.setTags(device, tags))) {
      throw new FieldloopError("not_found", `Set tags: there is no device "${device}"`);
    }
    // Its groups may have changed, and with them its policy.
    await this.#options.desired.reissue(device);
    return this.summary(device);
  }

  /** A suspended device is disconnected and stays out until it is resumed. */
  async setSuspended(device: string, suspended: boolean): Promise<DeviceSummary> {
    if (!(await this.#options.devices.setSuspended(device, suspended))) {
      throw new FieldloopError("not_found", `Suspend: there is no device "${device}"`);
    }
    if (suspended) this.#options.disconnect(device);
    this.#options.live.publish({ type: "device", id: device, device });
    return this.summary(device);
  }

  groups(): Promise<Group[]> {
    return this.#options.devices.groups();
  }

  /** @throws FieldloopError `invalid_argument` for `all`, and where it has neither or both of list and selector; `not_found` for an unknown device */
  async putGroup(group: Group): Promise<Group> {
    if (group.group === EVERY_DEVICE)
      throw new FieldloopError(
        "invalid_argument",
        `Put group: "${EVERY_DEVICE}" is every device, always; give another name`,
      );
    if ((group.devices === null) === (group.selector === null)) {
      throw new FieldloopError(
        "invalid_argument",
        `Put group: "${group.group}" needs either devices or a selector`,
      );
    }
    if (group.devices) await this.#checkKnown(group.devices);
    await this.#options.devices.putGroup(group);
    this.#options.onGroups?.();
    return group;
  }

  async deleteGroup(group: string): Promise<void> {
    if (!(await this.#options.devices.deleteGroup(group))) {
      throw new FieldloopError("not_found", `Delete group: there is no "${group}"`);
    }
    this.#options.onGroups?.();
  }

  /** The devices of a target now, in the order of their ids. `all` is the group of every device. @throws FieldloopError `not_found` */
  async resolve(target: DeviceTarget): Promise<string[]> {
    if ("devices" in target) {
      await this.#checkKnown(target.devices);
      return [...new Set(target.devices)].sort();
    }
    if (target.group === EVERY_DEVICE) return this.#options.devices.ids();
    const group = (await this.groups()).find((candidate) => candidate.group === target.group);
    if (!group) throw new FieldloopError("not_found", `Find group: there is no "${target.group}"`);
    const all = await this.#options.devices.tags();
    return all.filter(({ device, tags }) => isMember(group, device, tags)).map(({ device }) => device);
  }

  /** How many there are, are connected, and need a look. */
  async counts(): Promise<{ total: number; online: number; needAttention: number }> {
    const counts = { total: 0, online: 0, needAttention: 0 };
    for (const signs of await this.#options.devices.signs()) {
      counts.total++;
      if (signs.online) counts.online++;
      if (!signs.suspended && this.health(signs) !== "ok") counts.needAttention++;
    }
    return counts;
  }

  async #checkKnown(devices: readonly string[]): Promise<void> {
    const known = new Set(await this.#options.devices.ids());
    const unknown = devices.find((device) => !known.has(device));
    if (unknown !== undefined) throw new FieldloopError("not_found", `Find device: there is no "${unknown}"`);
  }

  async #summaries(records: readonly DeviceRecord[]): Promise<DeviceSummary[]> {
    const { telemetry, rates, clock, desired } = this.#options;
    const devices = records.map((record) => record.device);
    const window = { devices, from: clock.now() - ACCURACY_WINDOW_MS };
    const [accuracies, statistics, totals] = await Promise.all([
      telemetry.accuracyByDevice(window),
      telemetry.statisticsByDevice(window),
      telemetry.totalsByDevice({ devices }),
    ]);
    return Promise.all(
      records.map(async (record) => {
        const { device, state } = record;
        const assignments = (await desired.current(device))?.assignments ?? [];
        const lanes = state?.lanes ?? [];
        const forFirst = assignments.find(({ lane }) => lane === lanes[0]?.name);
        const wanted = forFirst ?? (lanes.length > 1 ? undefined : assignments[0]);
        return {
          device,
          tags: record.tags,
          enrolled: record.enrolled,
          suspended: record.suspended,
          online: record.online,
          lastSeen: record.lastSeen,
          running: state?.running
            ? {
                model: state.running.model,
                version: state.running.version,
                packageSha256: state.running.packageSha256,
                variant: state.running.variant,
                executionProvider: state.running.executionProvider,
              }
            : null,
          lanes:
            lanes.length < 2
              ? []
              : lanes.map(({ name, running }) => ({
                  name,
                  running: running ? { model: running.model, version: running.version } : null,
                })),
          wanted: wanted
            ? { model: wanted.model, version: wanted.version, packageSha256: wanted.packageSha256 }
            : null,
          health: this.health(record),
          warnings: this.#warnings(record),
          predictionsTotal: totals.get(device) ?? 0,
          predictionsPerSecond: rates.rate(device, clock.now()),
          meanConfidence: statistics.get(device)?.meanConfidence ?? null,
          accuracy: accuracies.get(device) ?? wilson({ successes: 0, count: 0 }),
        };
      }),
    );
  }
}
