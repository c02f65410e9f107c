import { FieldloopError, formatModelVersion, type Assignment } from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import { type Journal, type JournalEntry } from "../domain/rollout-journal.js";
import type { LiveRollout } from "../domain/rollout-live.js";
import { deploymentId, type RolloutDevice } from "../domain/rollout.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import type { DesiredStore, StoredDesired } from "../store/desired.js";
import type { StoredVersion } from "../store/registry.js";
import { RolloutStore } from "../store/rollouts.js";
import type { DesiredChange, DesiredService } from "./desired.js";
import type { NewId } from "./ids.js";
import { rolloutEvent, type OutboxEvent, type WebhookOutbox } from "./webhook-outbox.js";

export interface RolloutCommitOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly newId: NewId;
  readonly desired: Pick<DesiredService, "issueMany" | "publish">;
  readonly configs: Pick<DesiredStore, "knownConfig">;
  readonly registry: { require(model: string, version: number): Promise<StoredVersion> };
  readonly outbox: Pick<WebhookOutbox, "write" | "wake">;
}

/**
 * Makes a step durable: records, desired states, deployments, history and audit log in one unit of work; devices are told after it.
 * Either all of a step happened or none of it, so that a death at any instant neither loses nor doubles an offer.
 */
export class RolloutCommit {
  readonly #options: RolloutCommitOptions;

  constructor(options: RolloutCommitOptions) {
    this.#options = options;
  }

  /** @throws FieldloopError `precondition_failed` where another process changed the rollout; then its live form is stale */
  async write(live: LiveRollout, journal: Journal): Promise<{ refused: Map<string, FieldloopError> }> {
    const { database, desired } = this.#options;
    const unknown = new Map<string, FieldloopError>();
    const offers = await this.#changes(live, journal.offers, "offer", unknown);
    const restores = await this.#changes(live, journal.restores, "restore", unknown);
    const withdrawals = journal.withdrawals.map(({ device, attempt }) => ({
      device,
      withdraw: deploymentId(live.id, device, "offer", attempt),
    }));
    const refused = new Map(unknown);
    const stored: StoredDesired[] = [];
    await database.transaction(async (tx) => {
      await this.#records(tx, live, journal);
      for (const changes of [offers, restores]) {
        if (changes.length === 0) continue;
        const issued = await desired.issueMany(tx, changes);
        stored.push(...issued.stored);
        for (const [device, error] of issued.refused) refused.set(device, error);
      }
      // Of a device that was deleted meanwhile nothing is left to withdraw.
      if (withdrawals.length > 0) stored.push(...(await desired.issueMany(tx, withdrawals)).stored);
    });
    live.record.revision++;
    if (journal.lines().some(isHistory)) this.#options.outbox.wake();
    await desired.publish(stored);
    return { refused };
  }

  async #records(tx: Database, live: LiveRollout, journal: Journal): Promise<void> {
    const store = new RolloutStore(tx);
    const rollout = live.id;
    let seq = await store.lastEvent(rollout);
    const time = this.#options.clock.now();
    if (journal.added.size > 0) await store.addDevices(rollout, [...journal.added]);
    for (const entry of journal.devices) await store.saveDevice(rollout, entry);
    for (const entry of journal.compared)
      if (!journal.devices.has(entry)) await store.saveDevice(rollout, entry);
    for (const wave of journal.waves) await store.saveWave(rollout, wave);
    const told: OutboxEvent[] = [];
    for (const entry of journal.lines()) {
      if (entry.type === "verdict") await store.addVerdict(rollout, entry.wave, entry.look, entry.verdict);
      if (isHistory(entry)) {
        await store.addEvent(rollout, { seq: ++seq, time, entry });
        if (!journal.repeats.has(entry)) told.push(rolloutEvent(rollout, seq, time, entry));
      }
      await this.#audit(tx, rollout, time, entry);
    }
    await this.#options.outbox.write(tx, told);
    await store.save(live.record, seq);
  }

  async #audit(tx: Database, rollout: string, time: number, entry: JournalEntry): Promise<void> {
    const { action, detail } = auditOf(entry);
    const line = { entry: this.#options.newId("aud"), time, actor: entry.actor, action };
    await new AuditStore(tx).add({ ...line, subject: `rollout:${rollout}`, detail });
  }

  async #changes(
    live: LiveRollout,
    entries: readonly RolloutDevice[],
    purpose: "offer" | "restore",
    unknown: Map<string, FieldloopError>,
  ): Promise<DesiredChange[]> {
    const changes: DesiredChange[] = [];
    const versions = new Map<string, StoredVersion>();
    for (const entry of entries) {
      try {
        changes.push(await this.#change(live, entry, purpose, versions));
      } catch (error) {
        if (purpose === "offer" || !(error instanceof FieldloopError) || error.code !== "not_found")
          throw error;
        // One device that cannot go back keeps nobody else from it; what it has not finished is not to be done all the same.
        unknown.set(entry.device, error);
        const { device, attempt, state } = entry;
        if (state !== "active")
          changes.push({ device, withdraw: deploymentId(live.id, device, "offer", attempt) });
      }
    }
    return changes;
  }

  async #change(
    live: LiveRollout,
    entry: RolloutDevice,
    purpose: "offer" | "restore",
    versions: Map<string, StoredVersion>,
  ): Promise<DesiredChange> {
    const { device } = entry;
    const { subject, request } = live.record;
    const wanted = purpose === "offer" ? subject : entry.previous!;
    if (wanted.kind === "config") {
      if (wanted.configId === null) return { device, config: null };
      const { configs, database } = this.#options;
      const policy =
        "policy" in wanted ? wanted.policy : await configs.knownConfig(database, wanted.configId);
      return { device, config: policy ? { configId: wanted.configId, policy } : null };
    }
    const key = formatModelVersion(wanted.model, wanted.version);
    let version = versions.get(key);
    if (!version)
      versions.set(key, (version = await this.#options.registry.require(wanted.model, wanted.version)));
    const { packageSha256, manifestBytes } = version;
    if (packageSha256 !== wanted.packageSha256)
      throw new FieldloopError(
        "not_found",
        `Read version: "${key}" is another package here than "${wanted.packageSha256}"`,
      );
    const { model, version: number } = wanted;
    const about = { deployment: deploymentId(live.id, device, purpose, entry.attempt), rollout: live.id };
    const terms = purpose === "offer" ? this.#terms(live, entry) : {};
    const assign = {
      ...about,
      model,
      version: number,
      packageSha256,
      manifestBytes,
      probation: request.probation,
    };
    // What is taken back is taken back from a suspended device too: it must not come back to it.
    return { device, assign: { ...assign, ...terms }, evenSuspended: purpose === "restore" };
  }

  #terms(
    live: LiveRollout,
    { device }: RolloutDevice,
  ): Partial<Pick<Assignment, "shadow" | "window" | "expires">> {
    const timeZone = live.timeZoneOf(device);
    const state = live.windows.state(timeZone, this.#options.clock.now());
    const { shadow } = live.record.request;
    return { shadow, window: state?.open ?? null, expires: state?.open ? state.until : null };
  }
}

/** What happens to single devices without trouble is in their records; the history would drown in it. */
export function isHistory(entry: JournalEntry): boolean {
  return entry.type !== "devices" || (entry.what !== "offered" && entry.what !== "restored");
}

function auditOf(entry: JournalEntry): { action: string; detail: Record<string, unknown> } {
  switch (entry.type) {
    case "rollout":
      return { action: `rollout.${entry.state}`, detail: { reason: entry.reason } };
    case "wave":
      return { action: `wave.${entry.state}`, detail: { wave: entry.wave } };
    case "verdict":
      return {
        action: `gate.${entry.verdict.verdict}`,
        detail: { wave: entry.wave, look: entry.look, verdict: entry.verdict },
      };
    case "action":
      return { action: `rollout.action.${entry.action}`, detail: { wave: entry.wave, reason: entry.reason } };
    case "devices":
      return {
        action: `rollout.devices.${entry.what}`,
        detail: { count: entry.count, devices: entry.devices },
      };
  }
}
