import {
  COMMAND_TYPE,
  DESIRED_TYPE,
  FieldloopError,
  UNLIMITED,
  decodeMessage,
  encodeMessage,
  sign,
  signerOf,
  type Assignment,
  type Command,
  type Desired,
  type SigningKey,
} from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import { laneFor, replaceLane } from "../domain/lanes.js";
import type { Database } from "../store/database.js";
import type { DeploymentStore } from "../store/deployments.js";
import type { DesiredStore, StoredDesired } from "../store/desired.js";
import type { DeviceStore } from "../store/devices.js";
import type { LiveHub } from "./live.js";
import {
  DEFAULT_POLICY,
  devicePolicyChangeSchema,
  effectivePolicy,
  type DevicePolicy,
  type DevicePolicyChange,
} from "./policy.js";

/** Sends to devices; implemented by the broker. Without a connected device a retained message waits, another is lost. */
export interface Downlink {
  publish(device: string, kind: "desired" | "command" | "ack", payload: Uint8Array): Promise<void>;
}

export interface DesiredServiceOptions {
  readonly database: Database;
  readonly desired: DesiredStore;
  readonly devices: DeviceStore;
  readonly deployments: DeploymentStore;
  readonly downlink: Downlink;
  /** Its key may change while the server runs. */
  readonly director: { readonly directorKey: SigningKey };
  readonly clock: Clock;
  readonly live: LiveHub;
  readonly policy?: Partial<DevicePolicy>;
}

/** Of an assignment, what has a default. */
type Defaulted = "lane" | "shadow" | "window" | "expires";
/** What is assigned, and for which rollout (none: by hand). */
export type AssignRequest = Omit<Assignment, Defaulted> & {
  readonly lane?: string;
  readonly shadow?: Assignment["shadow"];
  readonly window?: Assignment["window"];
  readonly expires?: Assignment["expires"];
  readonly rollout?: string | null;
};

const PUBLISH_PAGE = 500;
const COMMAND_TTL_MS = 60_000;

/**
 * Desired states: per device one signed message whose revision only grows. It is stored in the unit of work that decided it and
 * published retained after the commit; a crash in between is healed by publishing all of them at the next start.
 */
export class DesiredService {
  readonly #options: DesiredServiceOptions;
  readonly #base: DevicePolicy;

  constructor(options: DesiredServiceOptions) {
    this.#options = options;
    this.#base = { ...DEFAULT_POLICY, ...options.policy };
  }

  /**
   * Asks a device to run a version: records the deployment as offered and issues the next revision.
   * @throws FieldloopError `not_found`, `device_suspended`, `already_exists` where the deployment id was used
   */
  async assign(device: string, request: AssignRequest): Promise<{ revision: number }> {
    const { rollout = null, shadow = null, window = null, expires = null, ...rest } = request;
    const record = await this.#options.devices.get(device);
    if (!record) throw new FieldloopError("not_found", `Assign: there is no device "${device}"`);
    if (record.suspended)
      throw new FieldloopError("device_suspended", `Assign: device "${device}" is suspended`);
    const lane = rest.lane ?? laneFor(record.state?.lanes ?? [], rest.model);
    const assignment: Assignment = { ...rest, lane, shadow, window, expires };
    const issued = await this.#issue(device, assignment, async (tx) => {
      const { deployment, model, version, packageSha256 } = assignment;
      await this.#options.deployments.insert(
        tx,
        { deployment, device, rollout, model, version, packageSha256 },
        this.#options.clock.now(),
      );
    });
    return { revision: issued.revision };
  }

  /** Issues a device's desired state again with today's policy; its first one when it enrols. */
  async reissue(device: string): Promise<{ revision: number }> {
    const issued = await this.#issue(device, undefined, async () => undefined);
    return { revision: issued.revision };
  }

  /** @returns undefined for a device that was never told anything */
  async current(device: string): Promise<Desired | undefined> {
    const stored = await this.#options.desired.get(device);
    return stored && decodeMessage("desired", stored.payload);
  }

  async policy(device: string): Promise<DevicePolicy> {
    const record = await this.#options.devices.get(device);
    if (!record) throw new FieldloopError("not_found", `Read policy: there is no device "${device}"`);
    return this.#policyOf(device, record.tags, await this.#policies(), await this.#options.devices.groups());
  }

  /** The policy of a scope as it was set: what it does not say comes from wider scopes. */
  async scopePolicy(scope: string): Promise<DevicePolicyChange> {
    return (await this.#policies()).get(scope) ?? {};
  }

  /** Changes the policy of `default`, `group:…` or `device:…` and tells the devices whose policy changed by it. */
  async changePolicy(scope: string, change: DevicePolicyChange): Promise<DevicePolicyChange> {
    const before = await this.#policies();
    const policy = { ...before.get(scope), ...change };
    await this.#options.desired.putPolicy(scope, policy);
    const after = new Map(before).set(scope, policy);
    const groups = await this.#options.devices.groups();
    for (const { device, tags } of await this.#options.devices.tags()) {
      const was = this.#policyOf(device, tags, before, groups);
      const is = this.#policyOf(device, tags, after, groups);
      if (JSON.stringify(was) !== JSON.stringify(is)) await this.reissue(device);
    }
    return policy;
  }

  /** One-shot command, signed, stale after a minute; the device answers with an event. */
  async command(device: string, command: string, action: Command["action"]): Promise<void> {
    const expires = this.#options.clock.now() + COMMAND_TTL_MS;
    const payload = encodeMessage("command", { command, device, expires, action });
    await this.#options.downlink.publish(
      device,
      "command",
      sign(COMMAND_TYPE, payload, this.#options.director.directorKey),
    );
  }

  /**
   * Publishes every stored desired state: the broker forgets its retained messages when it stops. One that a former director key signed
   * is signed anew under the next revision, so that devices keep it in place of the old one.
   */
  async publishAll(): Promise<number> {
    let count = 0;
    let after = "";
    for (;;) {
      const page = await this.#options.desired.list(after, PUBLISH_PAGE);
      for (const stored of page) await this.#publish(await this.#signedNow(stored));
      count += page.length;
      if (page.length < PUBLISH_PAGE) return count;
      after = page.at(-1)!.device;
    }
  }

  async #signedNow(stored: StoredDesired): Promise<StoredDesired> {
    const { database, desired, director, clock } = this.#options;
    if (signerOf(stored.envelope) === director.directorKey.keyId) return stored;
    return database.transaction(async (tx) => {
      const newest = (await desired.get(stored.device, tx)) ?? stored;
      if (signerOf(newest.envelope) === director.directorKey.keyId) return newest;
      const revision = newest.revision + 1;
      const issued = clock.now();
      const payload = encodeMessage("desired", {
        ...decodeMessage("desired", newest.payload),
        revision,
        issued,
      });
      const envelope = sign(DESIRED_TYPE, payload, director.directorKey);
      const next = { device: stored.device, revision, payload, envelope, issued };
      await desired.put(tx, next);
      return next;
    });
  }

  async #issue(
    device: string,
    assignment: Assignment | undefined,
    also: (tx: Database) => Promise<void>,
  ): Promise<StoredDesired> {
    const { clock, devices } = this.#options;
    const record = await devices.get(device);
    if (!record) throw new FieldloopError("not_found", `Issue desired state: there is no device "${device}"`);
    const policy = this.#policyOf(device, record.tags, await this.#policies(), await devices.groups());
    const stored = await this.#options.database.transaction(async (tx) => {
      const before = await this.#options.desired.get(device, tx);
      const kept = before ? decodeMessage("desired", before.payload).assignments : [];
      const { predictionsIntervalSeconds, profileIntervalSeconds, ...sampling } = policy;
      const desired: Desired = {
        device,
        revision: (before?.revision ?? 0) + 1,
        issued: clock.now(),
        assignments: assignment ? replaceLane(kept, assignment) : kept,
        sampling,
        predictionsIntervalSeconds,
        profileIntervalSeconds,
        limits: UNLIMITED,
      };
      const payload = encodeMessage("desired", desired);
      const envelope = sign(DESIRED_TYPE, payload, this.#options.director.directorKey);
      const next = { device, revision: desired.revision, payload, envelope, issued: desired.issued };
      await this.#options.desired.put(tx, next);
      await also(tx);
      return next;
    });
    await this.#publish(stored);
    this.#options.live.publish({ type: "device", id: device, device });
    return stored;
  }

  /** Two changes at once may get here in the other order, so the newest is published: what the broker retains must not go back. */
  async #publish(stored: StoredDesired): Promise<void> {
    const newest = await this.#options.desired.get(stored.device);
    await this.#options.downlink.publish(stored.device, "desired", (newest ?? stored).envelope);
  }

  async #policies(): Promise<Map<string, DevicePolicyChange>> {
    const stored = await this.#options.desired.policies();
    return new Map([...stored].map(([scope, policy]) => [scope, devicePolicyChangeSchema.parse(policy)]));
  }

  #policyOf(
    device: string,
    tags: Record<string, string>,
    policies: ReadonlyMap<string, DevicePolicyChange>,
    groups: Awaited<ReturnType<DeviceStore["groups"]>>,
  ): DevicePolicy {
    return effectivePolicy(this.#base, policies, groups, device, tags);
  }
}
