import {
  FieldloopError,
  formatModelVersion,
  type LiveEvent,
  type RolloutRequest,
  type RolloutView,
} from "@fieldloop/protocol";
import type { Clock, Logger } from "../context.js";
import { runningWhere, type ReportedLane } from "../domain/lanes.js";
import { wilson } from "../domain/intervals.js";
import { sumCounts } from "../domain/rollout-evidence.js";
import { act, step, type OperatorAction, type Step } from "../domain/rollout-step.js";
import { RolloutDraft, type Decision, type PackageRef } from "../domain/rollout.js";
import { planWaves } from "../domain/waves.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { RolloutStore, type OpenAssignment, type StoredRollout } from "../store/rollouts.js";
import type { StoredVersion } from "../store/registry.js";
import type { NewId } from "./ids.js";
import { RolloutAssigner, type RolloutAssignerOptions } from "./rollout-assigner.js";
import type { RolloutObserver } from "./rollout-observer.js";
import { buildRollout, commonVersion, viewRollout } from "./rollout-view.js";

export interface RolloutServiceOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: NewId;
  readonly observer: RolloutObserver;
  readonly registry: {
    require(model: string, version: number): Promise<StoredVersion>;
    /** @throws FieldloopError `version_awaiting_signature` for one that no device would install */
    requireSigned(model: string, version: number): Promise<StoredVersion>;
    letThrough(model: string, version: number, reason: string): Promise<void>;
    evidence(model: string, version: number): Promise<"none" | "passed" | "failed">;
  };
  readonly fleet: {
    /** Devices of a group. @throws FieldloopError `not_found` */
    members(group: string): Promise<readonly string[]>;
    get(device: string): Promise<
      | {
          suspended: boolean;
          state: { running: PackageRef | null; lanes: readonly ReportedLane<PackageRef>[] } | null;
        }
      | undefined
    >;
  };
  readonly desired: RolloutAssignerOptions["desired"];
  readonly live: { publish(event: LiveEvent): void };
  /** Called once when a rollout has succeeded. */
  readonly onSucceeded?: (rollout: StoredRollout) => Promise<void>;
  readonly tickMs?: number;
}

const TICK_MS = 1_000;
/** Reports of many devices at once cost one tick. */
const WAKE_MS = 50;
const LIST_MAX = 200;
/** Feedback that comes later than this after a rollout's end no longer changes its accuracy. */
const LATE_FEEDBACK_MS = 600_000;
const SETTLED_MAX = 1_000;

/**
 * Rollouts: what operators ask for, and the scheduler that steps the engine. A step is stored before it is carried out; what was
 * stored and not carried out (an offer whose desired state was not written) is found and carried out again, under the same
 * deployment id, so that a death at any instant neither loses nor doubles an offer.
 */
export class RolloutService {
  readonly #options: RolloutServiceOptions;
  readonly #store: RolloutStore;
  readonly #assigner: RolloutAssigner;
  /** One change at a time in this process; between processes the stored revision decides. */
  #queue: Promise<unknown> = Promise.resolve();
  readonly #settled = new Map<string, RolloutView["accuracy"]>();
  #timer: NodeJS.Timeout | undefined;
  /** When the next tick is due, on the monotonic clock. */
  #due = Number.POSITIVE_INFINITY;
  #ticking = false;
  #stopped = true;

  constructor(options: RolloutServiceOptions) {
    this.#options = options;
    this.#store = new RolloutStore(options.database);
    this.#assigner = new RolloutAssigner(options);
  }

  start(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#schedule(0);
  }

  /** Something happened to a rollout's device: the next tick is due now rather than in a second. */
  wake(): void {
    this.#schedule(WAKE_MS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#queue;
  }

  /** @throws FieldloopError `rollout_needs_evidence`, `version_awaiting_signature`, `not_found`, `invalid_argument`, `conflict` where a device is in another open rollout */
  async create(request: RolloutRequest, actor: string): Promise<RolloutView> {
    const { model, version } = request;
    const target = await this.#options.registry.requireSigned(model, version);
    const evidence = await this.#options.registry.evidence(model, version);
    if (evidence !== "passed" && request.forceReason === undefined) {
      throw new FieldloopError(
        "rollout_needs_evidence",
        `Create rollout of "${formatModelVersion(model, version)}": its evidence is "${evidence}"; evaluate it, or say why not (forceReason, on the command line --force)`,
      );
    }
    return this.#exclusive(async () => {
      const rollout = this.#options.newId("rol");
      const devices = await this.#resolve(request.target);
      const running = await this.#checkDevices(devices, request);
      const stored = buildRollout(rollout, request, target, planWaves(rollout, devices, request.waves), {
        created: this.#options.clock.now(),
        createdBy: actor,
        fromVersion: commonVersion(running, model),
      });
      await this.#options.database.transaction(async (tx) => {
        await new RolloutStore(tx).add(stored);
        await this.#audit(tx, actor, "rollout.created", rollout, {
          model,
          version,
          evidence,
          forceReason: request.forceReason ?? null,
        });
      });
      if (evidence !== "passed" && request.forceReason !== undefined) {
        await this.#options.registry.letThrough(model, version, request.forceReason);
      }
      const started = request.start ? await this.#act(stored, "start", null, actor) : stored;
      this.#schedule(0);
      return this.#view(started);
    });
  }

  /** @throws FieldloopError `not_found`, `conflict` where the state does not allow it */
  async act(
    rollout: string,
    action: OperatorAction | "approve",
    reason: string | null,
    actor: string,
  ): Promise<RolloutView> {
    return this.#exclusive(async () => {
      const stored = await this.#require(rollout);
      if (action === "approve") throw refused(stored, action);
      const acted = await this.#act(stored, action, reason, actor);
      this.#schedule(0);
      return this.#view(acted);
    });
  }

  async get(rollout: string): Promise<RolloutView> {
    return this.#view(await this.#require(rollout));
  }

  async list(options: { model?: string; before?: number; limit?: number } = {}): Promise<RolloutView[]> {
    const limit = Math.min(options.limit ?? 50, LIST_MAX);
    const rollouts = await this.#store.list({ ...options, limit });
    const views: RolloutView[] = [];
    for (const rollout of rollouts) views.push(await this.#view(rollout));
    return views;
  }

  async countRunning(): Promise<number> {
    return (await this.#store.listOpen()).filter(
      ({ state }) => state === "running" || state === "rolling_back",
    ).length;
  }

  /** Steps every open rollout once. The scheduler calls it; tests call it instead of waiting. */
  async tick(): Promise<void> {
    await this.#exclusive(async () => {
      for (const rollout of await this.#store.listOpen()) {
        await this.#guarded(rollout.rollout, () => this.#stepRollout(rollout));
      }
      for (const rollout of await this.#store.withOpenAssignments()) {
        await this.#guarded(rollout, () => this.#carryOut(rollout));
      }
    });
  }

  /** The next tick, no later than in `delayMs`; asked for during a tick, it follows that one. */
  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    const due = performance.now() + delayMs;
    this.#due = Math.min(this.#due, due);
    if (this.#ticking || (this.#timer && this.#due < due)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#runTick(), Math.max(0, this.#due - performance.now()));
  }

  async #runTick(): Promise<void> {
    this.#ticking = true;
    this.#timer = undefined;
    this.#due = Number.POSITIVE_INFINITY;
    try {
      await this.tick();
    } catch (error) {
      this.#options.logger.error({ err: error }, "rollout tick failed");
    } finally {
      this.#ticking = false;
      this.#schedule(this.#options.tickMs ?? TICK_MS);
    }
  }

  /** One broken rollout must not hold up the others. */
  async #guarded(rollout: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.logger.error({ err: error, rollout }, "rollout step failed");
    }
  }

  async #stepRollout(stored: StoredRollout): Promise<void> {
    const now = this.#options.clock.now();
    const observations = await this.#options.observer.observe(stored, now);
    await this.#commit(stored, step(stored, observations, now), "engine");
  }

  async #act(
    stored: StoredRollout,
    action: OperatorAction,
    reason: string | null,
    actor: string,
  ): Promise<StoredRollout> {
    const acted = act(stored, action, reason, this.#options.clock.now());
    if (!acted) throw refused(stored, action);
    return this.#commit(stored, acted, actor);
  }

  /** Stores a step and its audit entries in one unit of work; offers are carried out after it. */
  async #commit(stored: StoredRollout, { rollout, decisions }: Step, actor: string): Promise<StoredRollout> {
    if (decisions.length === 0) return stored;
    const saved = await this.#options.database.transaction(async (tx) => {
      const after = await new RolloutStore(tx).save(stored, rollout);
      for (const decision of decisions) await this.#auditDecision(tx, actor, stored.rollout, decision);
      return after;
    });
    this.#options.live.publish({ type: "rollout", id: stored.rollout });
    if (saved.state === "succeeded" && stored.state !== "succeeded") await this.#options.onSucceeded?.(saved);
    return saved;
  }

  async #carryOut(rollout: string): Promise<void> {
    const stored = await this.#require(rollout);
    for (const open of await this.#store.openAssignments(rollout)) {
      // One device that cannot be told now must not hold up the others; it is tried again at the next tick.
      await this.#guarded(rollout, async () => {
        const refusal = await this.#assigner.assign(stored, open);
        await this.#store.setAssigned(rollout, open.device, open.purpose);
        if (refusal) await this.#refuse(rollout, open, refusal);
      });
    }
    this.#options.live.publish({ type: "rollout", id: rollout });
  }

  /** The device was deleted or suspended, or the version before is not in the registry: no report will ever come. */
  async #refuse(rollout: string, open: OpenAssignment, error: FieldloopError): Promise<void> {
    const stored = await this.#require(rollout);
    const draft = new RolloutDraft(stored, this.#options.clock.now());
    draft.decide(
      open.purpose === "restore"
        ? { kind: "restored", device: open.device, outcome: "impossible" }
        : {
            kind: "device",
            device: open.device,
            state: "rejected",
            errorCode: error.code,
            errorMessage: error.message,
          },
    );
    await this.#commit(stored, { rollout: draft.rollout, decisions: draft.decisions }, "engine");
  }

  async #resolve(target: RolloutRequest["target"]): Promise<readonly string[]> {
    const devices =
      "group" in target ? await this.#options.fleet.members(target.group) : [...new Set(target.devices)];
    if (devices.length === 0)
      throw new FieldloopError("invalid_argument", "Create rollout: the target holds no device");
    return devices;
  }

  async #checkDevices(devices: readonly string[], request: RolloutRequest): Promise<PackageRef[]> {
    const busy = new Map<string, string>();
    for (const open of await this.#store.listOpen())
      for (const { device } of open.devices) busy.set(device, open.rollout);
    const running: PackageRef[] = [];
    for (const device of devices) {
      const record = await this.#options.fleet.get(device);
      if (!record) throw new FieldloopError("not_found", `Create rollout: there is no device "${device}"`);
      const other = busy.get(device);
      if (other)
        throw new FieldloopError(
          "conflict",
          `Create rollout: device "${device}" is in rollout "${other}", which is not finished: wait for its end, or abort it`,
        );
      const now = record.state && runningWhere(record.state, request.model);
      if (now && now.model !== request.model && request.forceReason === undefined) {
        throw new FieldloopError(
          "invalid_argument",
          `Create rollout of "${request.model}": device "${device}" runs "${now.model}"; leave it out, or say why (forceReason, on the command line --force)`,
        );
      }
      if (now) running.push(now);
    }
    return running;
  }

  async #require(rollout: string): Promise<StoredRollout> {
    const stored = await this.#store.get(rollout);
    if (!stored) throw new FieldloopError("not_found", `Read rollout: there is no rollout "${rollout}"`);
    return stored;
  }

  async #view(stored: StoredRollout): Promise<RolloutView> {
    return viewRollout(stored, await this.#accuracy(stored));
  }

  /** Over all devices that were offered the version; kept for rollouts that ended long enough ago for late feedback to be in. */
  async #accuracy(stored: StoredRollout): Promise<RolloutView["accuracy"]> {
    const known = this.#settled.get(stored.rollout);
    if (known) return known;
    const now = this.#options.clock.now();
    const counts = [];
    for (const device of stored.devices)
      counts.push(await this.#options.observer.counts(stored, device, now));
    const accuracy = {
      before: wilson(sumCounts(counts.map(({ before }) => before)).feedback),
      after: wilson(sumCounts(counts.map(({ after }) => after)).feedback),
    };
    if (stored.finished !== null && now - stored.finished > LATE_FEEDBACK_MS) {
      if (this.#settled.size >= SETTLED_MAX) this.#settled.clear();
      this.#settled.set(stored.rollout, accuracy);
    }
    return accuracy;
  }

  async #auditDecision(tx: Database, actor: string, rollout: string, decision: Decision): Promise<void> {
    if (decision.kind === "rollout") {
      await this.#audit(tx, actor, `rollout.${decision.state}`, rollout, { reason: decision.reason });
    } else if (decision.kind === "wave") {
      const { wave, state, verdict } = decision;
      await this.#audit(tx, actor, `wave.${state}`, rollout, { wave, ...(verdict ? { verdict } : {}) });
    }
  }

  async #audit(
    tx: Database,
    actor: string,
    action: string,
    rollout: string,
    detail: Record<string, unknown>,
  ): Promise<void> {
    const entry = { entry: this.#options.newId("aud"), time: this.#options.clock.now(), actor, action };
    await new AuditStore(tx).add({ ...entry, subject: `rollout:${rollout}`, detail });
  }

  #exclusive<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

function refused(stored: StoredRollout, action: string): FieldloopError {
  const failed = action === "resume" && stored.waves.some(({ state }) => state === "failed");
  const why = failed ? "a wave failed; abort or roll back" : `it is "${stored.state}"`;
  return new FieldloopError("conflict", `${action} rollout "${stored.rollout}": ${why}`);
}
