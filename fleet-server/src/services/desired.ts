import {
  COMMAND_TYPE,
  DESIRED_TYPE,
  FieldloopError,
  decodeMessage,
  encodeMessage,
  signerOf,
  type Assignment,
  type Command,
  devicePolicyChangeSchema,
  type Desired,
  type SigningKey,
} from "@fieldloop/protocol";
import { nativeSigner } from "../auth/native-sign.js";
import type { Clock } from "../context.js";
import { laneFor, replaceLane } from "../domain/lanes.js";
import type { Database } from "../store/database.js";
import type { DeploymentStore } from "../store/deployments.js";
import type { DesiredStore, StoredDesired } from "../store/desired.js";
import type { DeviceBrief, DeviceStore } from "../store/devices.js";
import type { LiveHub } from "./live.js";
import { DEFAULT_POLICY, effectivePolicy, type DevicePolicy, type DevicePolicyChange } from "./policy.js";

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

/** What is to change in one device's desired state; what is left out stays. */
export interface DesiredChange {
  readonly device: string;
  readonly assign?: AssignRequest;
  /** Assigned to a suspended device as well, which finds it when it is let in again. */
  readonly evenSuspended?: boolean;
  /** A deployment that is not wanted any more: its assignment is taken out, where it is still there. */
  readonly withdraw?: string;
  /** The configuration rolled out to it; null takes it away. */
  readonly config?: { readonly configId: string; readonly policy: DevicePolicyChange } | null;
}

/** What was written, to be published after the commit, and who cannot be told anything. */
export interface Issued {
  readonly stored: StoredDesired[];
  readonly refused: Map<string, FieldloopError>;
}

const PUBLISH_PAGE = 500;
const COMMAND_TTL_MS = 60_000;

/**
 * Desired states: per device one signed message whose revision only grows. It is stored in the unit of work that decided it and
 * published retained after the commit; a crash in between is healed by publishing all of them at the next start.
 */
export class DesiredService {
  readonly #options: DesiredServiceOptions;
  readonly #base: DevicePolicy;
  #signer: { readonly keyId: string; readonly sign: ReturnType<typeof nativeSigner> } | undefined;

  constructor(options: DesiredServiceOptions) {
    this.#options = options;
    this.#base = { ...DEFAULT_POLICY, ...options.policy };
  }

  /**
   * Asks a device to run a version: records the deployment as offered and issues the next revision.
   * @throws FieldloopError `not_found`, `device_suspended`, `already_exists` where the deployment id was used
   */
  async assign(device: string, request: AssignRequest): Promise<{ revision: number }> {
    const issued = await this.#options.database.transaction((tx) =>
      this.issueMany(tx, [{ device, assign: request }]),
    );
    const refusal = issued.refused.get(device);
    if (refusal) throw refusal;
    await this.publish(issued.stored);
    return { revision: issued.stored[0]!.revision };
  }

  /**
   * Writes the next desired state of many devices in the caller's unit of work; {@link publish} follows its commit. Policies and groups
   * are read once for all of them.
   * @throws FieldloopError `already_exists` where a deployment id was used
   */
  async issueMany(tx: Database, changes: readonly DesiredChange[]): Promise<Issued> {
    const issued: Issued = { stored: [], refused: new Map() };
    const policies = parsePolicies(await this.#options.desired.policies(tx));
    const groups = await this.#options.devices.groups(tx);
    const briefs = await this.#options.devices.briefs(
      tx,
      changes.map(({ device }) => device),
    );
    for (const change of changes) {
      const brief = briefs.get(change.device);
      const refusal = !brief
        ? new FieldloopError("not_found", `Assign: there is no device "${change.device}"`)
        : brief.suspended && change.assign && !change.evenSuspended
          ? new FieldloopError("device_suspended", `Assign: device "${change.device}" is suspended`)
          : undefined;
      if (refusal) issued.refused.set(change.device, refusal);
      else await this.#writeOrRefuse(tx, change, brief!, policies, groups, issued);
    }
    return issued;
  }

  /** A device that can take no more is refused: it keeps no other from its own. */
  async #writeOrRefuse(
    tx: Database,
    change: DesiredChange,
    brief: DeviceBrief,
    policies: ReadonlyMap<string, DevicePolicyChange>,
    groups: Awaited<ReturnType<DeviceStore["groups"]>>,
    { stored, refused }: Issued,
  ): Promise<void> {
    try {
      stored.push(await this.#write(tx, change, brief, policies, groups));
    } catch (error) {
      if (!(error instanceof FieldloopError) || error.code !== "limit_exceeded") throw error;
      refused.set(change.device, error);
    }
  }

  /** Sends what was written to its devices; a crash before it is healed by the next start. */
  async publish(stored: readonly StoredDesired[]): Promise<void> {
    // All at once: one after the other each would wait for what the others let in between.
    await Promise.all(
      stored.map(async (one) => {
        await this.#publish(one);
        this.#options.live.publish({ type: "device", id: one.device, device: one.device });
      }),
    );
  }

  /** Issues a device's desired state again with today's policy; its first one when it enrols. */
  async reissue(device: string): Promise<{ revision: number }> {
    const issued = await this.#options.database.transaction((tx) => this.issueMany(tx, [{ device }]));
    const refusal = issued.refused.get(device);
    if (refusal) throw refusal;
    await this.publish(issued.stored);
    return { revision: issued.stored[0]!.revision };
  }

  /** @returns undefined for a device that was never told anything */
  async current(device: string): Promise<Desired | undefined> {
    const stored = await this.#options.desired.get(device);
    return stored && decodeMessage("desired", stored.payload);
  }

  async policy(device: string): Promise<DevicePolicy> {
    const record = await this.#options.devices.get(device);
    if (!record) throw new FieldloopError("not_found", `Read policy: there is no device "${device}"`);
    const config = await this.#options.desired.config(device);
    return this.#policyOf(
      device,
      record.tags,
      await this.#policies(),
      await this.#options.devices.groups(),
      config?.policy,
    );
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
    await this.#options.downlink.publish(device, "command", this.#sign(COMMAND_TYPE, payload));
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
      const envelope = this.#sign(DESIRED_TYPE, payload);
      const next = { device: stored.device, revision, payload, envelope, issued };
      await desired.put(tx, next);
      return next;
    });
  }

  async #write(
    tx: Database,
    change: DesiredChange,
    brief: DeviceBrief,
    policies: ReadonlyMap<string, DevicePolicyChange>,
    groups: Awaited<ReturnType<DeviceStore["groups"]>>,
  ): Promise<StoredDesired> {
    const { desired: store, deployments, clock } = this.#options;
    const { device, assign } = change;
    if (change.config !== undefined) await store.putConfig(tx, device, change.config);
    const config = change.config === undefined ? await store.config(device, tx) : change.config;
    const before = await store.get(device, tx);
    const kept = (before ? decodeMessage("desired", before.payload).assignments : []).filter(
      ({ deployment }) => deployment !== change.withdraw,
    );
    const assignment = assign && assignmentOf(assign, brief.lanes);
    const {
      predictionsIntervalSeconds,
      profileIntervalSeconds,
      downloadBytesPerSecond,
      bytesPerDay,
      ...sampling
    } = this.#policyOf(device, brief.tags, policies, groups, config?.policy);
    const desired: Desired = {
      device,
      revision: (before?.revision ?? 0) + 1,
      issued: clock.now(),
      assignments: assignment ? replaceLane(kept, assignment) : kept,
      sampling,
      predictionsIntervalSeconds,
      profileIntervalSeconds,
      limits: { downloadBytesPerSecond, bytesPerDay },
      configId: config?.configId ?? null,
    };
    const payload = encodeMessage("desired", desired);
    const envelope = this.#sign(DESIRED_TYPE, payload);
    const next = { device, revision: desired.revision, payload, envelope, issued: desired.issued };
    await store.put(tx, next);
    if (assignment) {
      const { deployment, model, version, packageSha256 } = assignment;
      const rollout = assign.rollout ?? null;
      await deployments.insert(
        tx,
        { deployment, device, rollout, model, version, packageSha256 },
        clock.now(),
      );
    }
    return next;
  }

  /** With the director's key of now; making a signer of it costs as much as a signature. */
  #sign(type: string, payload: Uint8Array): Uint8Array {
    const { directorKey } = this.#options.director;
    if (this.#signer?.keyId !== directorKey.keyId)
      this.#signer = { keyId: directorKey.keyId, sign: nativeSigner(directorKey) };
    return this.#signer.sign(type, payload);
  }

  /** Two changes at once may get here in the other order, so the newest is published: what the broker retains must not go back. */
  async #publish(stored: StoredDesired): Promise<void> {
    const newest = await this.#options.desired.get(stored.device);
    await this.#options.downlink.publish(stored.device, "desired", (newest ?? stored).envelope);
  }

  async #policies(): Promise<Map<string, DevicePolicyChange>> {
    return parsePolicies(await this.#options.desired.policies());
  }

  #policyOf(
    device: string,
    tags: Record<string, string>,
    policies: ReadonlyMap<string, DevicePolicyChange>,
    groups: Awaited<ReturnType<DeviceStore["groups"]>>,
    rolledOut: DevicePolicyChange = {},
  ): DevicePolicy {
    return effectivePolicy(this.#base, policies, groups, device, tags, rolledOut);
  }
}

function assignmentOf(request: AssignRequest, lanes: Parameters<typeof laneFor>[0]): Assignment {
  const { rollout: _rollout, shadow = null, window = null, expires = null, ...rest } = request;
  return { ...rest, lane: rest.lane ?? laneFor(lanes, rest.model), shadow, window, expires };
}

function parsePolicies(stored: ReadonlyMap<string, unknown>): Map<string, DevicePolicyChange> {
  return new Map([...stored].map(([scope, policy]) => [scope, devicePolicyChangeSchema.parse(policy)]));
}
