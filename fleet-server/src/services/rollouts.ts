import {
  FieldloopError,
  type LiveEvent,
  type Page,
  type RolloutAction,
  type RolloutDeviceState,
  type RolloutDeviceView,
  type RolloutEvent,
  type RolloutProgress,
  type RolloutRequest,
  type RolloutState,
  type RolloutVerdict,
  type RolloutView,
} from "@fieldloop/protocol";
import type { Clock, Logger } from "../context.js";
import { Fleet } from "../domain/fleet.js";
import { fitCheckOf, type FitCheck } from "../domain/compatibility.js";
import { wilson } from "../domain/intervals.js";
import { act, type Actor } from "../domain/rollout-actions.js";
import { RolloutEngine } from "../domain/rollout-engine.js";
import { LiveRollout } from "../domain/rollout-live.js";
import { deploymentId, hasFailed, type RolloutDevice, type RolloutRecord } from "../domain/rollout.js";
import { supersedersOf } from "../domain/rollout-tally.js";
import { planWaves } from "../domain/waves.js";
import type { CommitEffects, DeploymentNews } from "../ingest/context.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import type { DeploymentStore } from "../store/deployments.js";
import type { DesiredStore } from "../store/desired.js";
import type { Behind } from "../store/newest.js";
import type { StoredVersion } from "../store/registry.js";
import { RolloutStore, type StoredRollout } from "../store/rollouts.js";
import type { FleetFeed } from "./fleet-feed.js";
import type { NewId } from "./ids.js";
import { RolloutCommit, type RolloutCommitOptions } from "./rollout-commit.js";
import { resolveRequest, type CreateSources } from "./rollout-create.js";
import { RolloutEvidence, type RolloutEvidenceOptions } from "./rollout-evidence.js";
import { TickTimer } from "./rollout-timer.js";
import { titleOf, viewDevice, viewEvent, viewProgress, viewRollout } from "./rollout-view.js";

export interface RolloutServiceOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: NewId;
  /** False while another server may have the database; always true where absent. */
  readonly mayDecide?: () => boolean;
  readonly feed: FleetFeed;
  readonly deployments: Pick<DeploymentStore, "ofRollout">;
  readonly configs: Pick<DesiredStore, "knownConfig" | "addConfig">;
  readonly stats: RolloutEvidenceOptions["stats"];
  readonly shadowOf?: RolloutEvidenceOptions["shadowOf"];
  readonly registry: CreateSources["registry"] & RolloutCommitOptions["registry"];
  readonly desired: RolloutCommitOptions["desired"];
  readonly outbox: RolloutCommitOptions["outbox"];
  readonly live: { publish(event: LiveEvent): void };
  /** Called once when a rollout has succeeded. */
  readonly onSucceeded?: (version: { model: string; version: number }) => Promise<void>;
  readonly tickMs?: number;
}

/** Which devices of a rollout, and in which order: as planned, or failed and silent ones first. */
export interface DevicesQuery {
  readonly wave?: number;
  readonly state?: RolloutDeviceState;
  readonly order?: "plan" | "worst";
  readonly cursor?: number;
  readonly limit?: number;
}

const LIST_MAX = 200;
const PAGE_MAX = 500;
/** Feedback that comes later than this after a rollout's end no longer changes its accuracy. */
const LATE_FEEDBACK_MS = 600_000;

/**
 * Rollouts: what people ask for, and the engine's steps made durable. The engine works in memory; a step whose commit fails is
 * forgotten with the live form of its rollout, which is read again from the store before anything else is done.
 */
export class RolloutService {
  readonly #options: RolloutServiceOptions;
  readonly #store: RolloutStore;
  readonly #commit: RolloutCommit;
  readonly #evidence: RolloutEvidence;
  readonly #engine: RolloutEngine;
  readonly #fits = new Map<string, FitCheck>();
  /** Rollouts whose step was not stored: their live form is gone, and read again as soon as the store can be read. */
  readonly #stale = new Set<string>();
  /** What devices said of rollouts that are being read: it may be in none of what was read. */
  readonly #loading = new Map<string, DeploymentNews[]>();
  readonly timer: TickTimer;
  /** One change at a time in this process; between processes the stored revision decides. */
  #queue: Promise<unknown> = Promise.resolve();
  #loaded = false;

  constructor(options: RolloutServiceOptions) {
    this.#options = options;
    this.#store = new RolloutStore(options.database);
    this.#commit = new RolloutCommit(options);
    this.#evidence = new RolloutEvidence({
      stats: options.stats,
      ...(options.shadowOf ? { shadowOf: options.shadowOf } : {}),
      fits: (live) => this.#fits.get(live.id) ?? (() => undefined),
    });
    this.#engine = new RolloutEngine(options.feed.fleet, this.#evidence);
    this.timer = new TickTimer(() => this.tick(), options.logger, options.tickMs);
  }

  /** Reads the fleet and every rollout that has something to do. */
  async load(): Promise<void> {
    if (this.#loaded) return;
    this.#loaded = true;
    await this.#options.feed.load();
    for (const stored of await this.#store.listLive()) await this.#load(stored);
    await this.#reinstate(await this.#store.supersededInVain());
  }

  async start(): Promise<void> {
    await this.load();
    this.timer.start();
  }

  async stop(): Promise<void> {
    this.timer.stop();
    await this.#queue;
  }

  /** Something that concerns a rollout was written. */
  note(event: LiveEvent): void {
    this.#options.feed.note(event);
    if (event.type === "rollout" && event.device !== undefined) this.timer.wake();
  }

  /** What ingest made durable. */
  committed({ seen, words }: CommitEffects): void {
    this.#options.feed.seen(seen);
    for (const news of words) {
      this.#loading.get(news.rollout)?.push(news);
      this.#hear(news);
    }
  }

  #hear({ rollout, deployment, device, ...word }: DeploymentNews): void {
    const attempt = this.#engine.get(rollout)?.devices.get(device)?.attempt;
    if (attempt !== undefined && deploymentId(rollout, device, "offer", attempt) === deployment)
      this.#engine.noteWord(rollout, device, attempt, word);
  }

  /** @throws FieldloopError `rollout_needs_evidence`, `version_awaiting_signature`, `not_found`, `invalid_argument` */
  async create(request: RolloutRequest, by: Actor): Promise<RolloutView> {
    return this.#exclusive(async () => {
      this.#demandRight();
      const actor = by.name;
      await this.load();
      await this.#renew();
      await this.#options.feed.catchUp();
      const { database, clock, newId, configs } = this.#options;
      const { fleet } = this.#options.feed;
      const meant = await resolveRequest(request, { fleet, registry: this.#options.registry });
      const rollout = newId("rol");
      const { waves, devices } = planWaves(rollout, meant.target, request);
      const { forceReason } = request;
      const now = clock.now();
      const record: RolloutRecord = {
        ...{ rollout, subject: meant.subject, request, created: now, createdBy: actor },
        ...{ creator: by.sponsor, from: meant.from },
        ...{ state: "draft", reason: null, started: null, finished: null, approved: null },
        ...{ current: false, supersededBy: null, revision: 1 },
      };
      await database.transaction(async (tx) => {
        await new RolloutStore(tx).add(record, waves, devices);
        if (meant.subject.kind === "config")
          await configs.addConfig(tx, meant.subject.configId, meant.subject.policy, now);
        const detail = {
          change: request.change,
          evidence: meant.evidence,
          forceReason: forceReason ?? null,
        };
        const entry = { entry: newId("aud"), time: now, actor, action: "rollout.created" };
        await new AuditStore(tx).add({ ...entry, subject: `rollout:${rollout}`, detail });
        const data = { rollout, actor, ...detail, devices: devices.length, waves: waves.length };
        const event = { id: `${rollout}.0`, type: "io.fieldloop.rollout.created", time: now } as const;
        await this.#options.outbox.write(tx, [{ ...event, subject: rollout, data }]);
      });
      this.#options.outbox.wake();
      const { subject, evidence } = meant;
      if (subject.kind === "package" && evidence !== "passed" && forceReason !== undefined)
        await this.#options.registry.letThrough(subject.model, subject.version, forceReason);
      const live = await this.#load({ record, waves }, devices);
      if (request.start) await this.#act(live, { action: "start", reason: "" }, by);
      this.timer.wake();
      return this.#view(live);
    });
  }

  /** @throws FieldloopError `not_found`, `conflict` where the state does not allow it */
  async act(rollout: string, action: RolloutAction, actor: Actor): Promise<RolloutView> {
    return this.#exclusive(async () => {
      await this.#renew();
      const live = this.#engine.get(rollout) ?? (await this.#load(await this.#require(rollout)));
      await this.#act(live, action, actor);
      this.timer.wake();
      return this.#view(live);
    });
  }

  async get(rollout: string): Promise<RolloutView> {
    return this.#view(await this.#find(rollout));
  }

  async list(
    options: { model?: string; state?: RolloutState; before?: Behind; limit?: number } = {},
  ): Promise<RolloutView[]> {
    const limit = Math.min(options.limit ?? 50, LIST_MAX);
    const views: RolloutView[] = [];
    for (const { record } of await this.#store.list({ ...options, limit }))
      views.push(await this.#view(await this.#find(record.rollout)));
    return views;
  }

  /** In the order of the plan. */
  async devices(rollout: string, options: DevicesQuery = {}): Promise<Page<RolloutDeviceView>> {
    const live = await this.#find(rollout);
    const limit = Math.min(options.limit ?? 100, PAGE_MAX);
    const { wave: inWave, state: inState, cursor = -1, order = "plan" } = options;
    const rank = ({ state }: RolloutDevice): number => (order === "worst" ? worstRank(state) : 0);
    const entries = [...live.devices.values()]
      .filter(
        ({ wave, state, position }) =>
          (inWave ?? wave) === wave && (inState ?? state) === state && position > cursor,
      )
      .sort((a, b) => rank(a) - rank(b) || a.position - b.position)
      .slice(0, limit);
    // The worst come as one page: what is behind it is well.
    const next = order === "plan" && entries.length === limit ? String(entries.at(-1)!.position) : null;
    return { items: entries.map((entry) => viewDevice(live, entry)), next };
  }

  /** Every verdict that was ever given, oldest first. */
  async verdicts(
    rollout: string,
    options: { wave?: number; cursor?: string; limit?: number } = {},
  ): Promise<Page<RolloutVerdict>> {
    await this.#require(rollout);
    const [wave = 0, look = 0] = (options.cursor ?? "0.0").split(".").map(Number);
    const limit = Math.min(options.limit ?? 100, PAGE_MAX);
    const narrow = options.wave === undefined ? {} : { wave: options.wave };
    const rows = await this.#store.verdicts(rollout, { ...narrow, after: { wave, look }, limit });
    const last = rows.at(-1);
    return {
      items: rows.map((row) => ({ rollout, ...row })),
      next: rows.length === limit && last ? `${last.wave}.${last.look}` : null,
    };
  }

  /** Its history behind `after`. @throws FieldloopError `not_found` */
  async events(rollout: string, after: number, limit = PAGE_MAX): Promise<RolloutEvent[]> {
    await this.#require(rollout);
    return (await this.#store.events(rollout, after, limit)).map(viewEvent);
  }

  /** The same, the newest first, in pages. */
  async history(
    rollout: string,
    options: { cursor?: number; limit?: number } = {},
  ): Promise<Page<RolloutEvent>> {
    await this.#require(rollout);
    const limit = Math.min(options.limit ?? 100, PAGE_MAX);
    const before = options.cursor ?? (await this.#store.lastEvent(rollout)) + 1;
    const after = Math.max(0, before - 1 - limit);
    const rows = await this.#store.events(rollout, after, before - 1 - after);
    return { items: rows.map(viewEvent).reverse(), next: after > 0 ? String(after + 1) : null };
  }

  async progress(rollout: string): Promise<RolloutProgress> {
    return viewProgress(await this.#find(rollout), this.#options.clock.now());
  }

  countRunning(): number {
    return [...this.#engine.rollouts].filter(({ state }) => state === "running" || state === "rolling_back")
      .length;
  }

  /** Steps every live rollout once. The timer calls it; tests call it instead of waiting. @returns whether it left something over */
  async tick(): Promise<boolean> {
    if (!this.#mayDecide) return false;
    return this.#exclusive(async () => {
      await this.load();
      await this.#renew();
      let left = await this.#options.feed.catchUp();
      const now = this.#options.clock.now();
      for (const live of this.#engine.looksDue(now)) {
        await this.#guarded(live, () => this.#evidence.refresh(live, now));
        if (!this.#evidence.isFresh(live)) left = true;
      }
      if (this.#engine.step(now)) left = true;
      for (const live of [...this.#engine.rollouts]) {
        await this.#guarded(live, () => this.#write(live));
        await this.#guarded(live, () => this.#retire(live, now));
      }
      return left;
    });
  }

  async #act(live: LiveRollout, action: RolloutAction, actor: Actor): Promise<void> {
    this.#demandRight();
    const refusal = act(live, action, actor, this.#options.clock.now());
    if (refusal !== undefined)
      throw new FieldloopError("conflict", `${action.action} rollout "${live.id}": ${refusal}`);
    await this.#write(live);
    // Another rollout that it took the place of is written by the next step.
    this.#engine.noteMove(live);
  }

  /** Reads again what a failed commit left behind. Until that is done nothing is decided: what the others may do depends on it. */
  async #renew(): Promise<void> {
    for (const rollout of this.#stale) {
      const stored = await this.#store.get(rollout);
      if (stored) await this.#load(stored);
      this.#stale.delete(rollout);
    }
  }

  /** Stores what a step changed. What fails is read again from the store: nothing of it happened. */
  async #write(live: LiveRollout): Promise<void> {
    const journal = live.takeJournal();
    if (journal.empty) return;
    const now = this.#options.clock.now();
    try {
      await this.#evidence.watch(live, [...journal.watched, ...journal.compared], now);
      const { refused } = await this.#commit.write(live, journal);
      for (const [device, error] of refused) this.#refuse(live, device, error, now);
    } catch (error) {
      // What kept it from being written may keep it from being read, too.
      this.#engine.unload(live.id);
      this.#stale.add(live.id);
      throw error;
    }
    this.#options.live.publish({ type: "rollout", id: live.id });
    const ended = journal.lines().find((line) => line.type === "rollout");
    if (ended?.state === "succeeded" && live.record.subject.kind === "package")
      await this.#options.onSucceeded?.(live.record.subject);
    if (ended?.state === "aborted" || ended?.state === "rolled_back")
      await this.#reinstate(await this.#store.supersededBy(live.id));
  }

  /** The device was deleted meanwhile, or suspended before the offer, or cannot be told this: no report will ever come. */
  #refuse(live: LiveRollout, device: string, error: FieldloopError, now: number): void {
    const entry = live.devices.get(device)!;
    if (entry.restore !== "none")
      live.change(entry, { restore: "impossible", restoreDetail: error.message, updated: now });
    else
      live.change(entry, {
        state: "rejected",
        errorCode: error.code,
        errorMessage: error.message,
        updated: now,
      });
  }

  /** What it had taken the place of says again what the target has, where a still newer one does not. */
  async #reinstate(superseded: readonly StoredRollout[]): Promise<void> {
    for (const stored of superseded) {
      const older = this.#engine.get(stored.record.rollout) ?? (await this.#load(stored));
      const heir = this.#engine.successorOf(older)?.id ?? (await this.#heirOf(stored.record));
      older.set({ supersededBy: heir, current: heir === null });
    }
  }

  /** Who took the place of the one that took its place, and so on, until one that is not taken back; null where there is none. */
  async #heirOf({ supersededBy }: RolloutRecord): Promise<string | null> {
    if (supersededBy === null) return null;
    const stored = await this.#store.get(supersededBy);
    if (!stored) return null;
    const { record } = stored;
    const isOff = record.state === "aborted" || record.state === "rolled_back";
    return isOff ? this.#heirOf(record) : supersededBy;
  }

  /** A rollout that is over and serves nobody any longer leaves the memory. */
  async #retire(live: LiveRollout, now: number): Promise<void> {
    const { state, finished, current } = live.record;
    const over = finished !== null && !current && state !== "rolling_back";
    if (this.#engine.get(live.id) !== live) return;
    if (!over || live.restoring.size > 0 || live.inProgress.size > 0 || now - finished < LATE_FEEDBACK_MS)
      return;
    await this.#store.saveAccuracy(live.id, await this.#accuracy(live));
    this.#engine.unload(live.id);
    this.#fits.delete(live.id);
  }

  async #load(stored: StoredRollout, planned?: Parameters<RolloutStore["add"]>[2]): Promise<LiveRollout> {
    const { rollout } = stored.record;
    const meanwhile: DeploymentNews[] = [];
    this.#loading.set(rollout, meanwhile);
    try {
      const live = await this.#read(stored, planned);
      for (const news of meanwhile) this.#hear(news);
      return live;
    } finally {
      this.#loading.delete(rollout);
    }
  }

  async #read(stored: StoredRollout, planned?: Parameters<RolloutStore["add"]>[2]): Promise<LiveRollout> {
    const { record, waves } = stored;
    const devices = planned ?? (await this.#store.devices(record.rollout));
    const words = planned ? [] : await this.#options.deployments.ofRollout(record.rollout);
    const byId = new Map(words.map((word) => [word.deployment, word]));
    for (const entry of devices) {
      const word = byId.get(deploymentId(record.rollout, entry.device, "offer", entry.attempt));
      if (word) {
        const errorCode = word.errorCode as FieldloopError["code"] | null;
        entry.word = { state: word.state, errorCode, errorMessage: word.errorMessage };
      }
    }
    await this.#loadFit(record);
    return this.#engine.load(record, waves, devices);
  }

  async #loadFit({ rollout, subject }: RolloutRecord): Promise<void> {
    if (subject.kind === "config") return;
    const { manifest }: StoredVersion = await this.#options.registry.require(subject.model, subject.version);
    this.#fits.set(rollout, fitCheckOf(manifest));
  }

  /** The live form; of a rollout that is over, one of its own that nothing changes. */
  async #find(rollout: string): Promise<LiveRollout> {
    const live = this.#engine.get(rollout);
    if (live) return live;
    const { record, waves } = await this.#require(rollout);
    return new LiveRollout(new Fleet(), record, waves, await this.#store.devices(rollout));
  }

  async #require(rollout: string): Promise<StoredRollout> {
    const stored = await this.#store.get(rollout);
    if (!stored) throw new FieldloopError("not_found", `Read rollout: there is no rollout "${rollout}"`);
    return stored;
  }

  async #view(live: LiveRollout): Promise<RolloutView> {
    const stored = this.#engine.get(live.id)
      ? undefined
      : await this.#store.accuracy<RolloutView["accuracy"]>(live.id);
    const accuracy = stored ?? (await this.#accuracy(live));
    return viewRollout(live, { accuracy, titles: await this.#titlesOfSuperseders(live) });
  }

  async #titlesOfSuperseders(live: LiveRollout): Promise<Map<string, string>> {
    const titles = new Map<string, string>();
    for (const [rollout] of supersedersOf(live.tallies)) {
      const subject =
        this.#engine.get(rollout)?.record.subject ?? (await this.#store.get(rollout))?.record.subject;
      if (subject) titles.set(rollout, titleOf(subject));
    }
    return titles;
  }

  async #accuracy(live: LiveRollout): Promise<RolloutView["accuracy"]> {
    const { before, after } = await this.#evidence.accuracy(live, this.#options.clock.now());
    return { before: wilson(before), after: wilson(after) };
  }

  /** One broken rollout must not hold up the others. */
  async #guarded(live: LiveRollout, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.logger.error({ err: error, rollout: live.id }, "rollout step failed");
    }
  }

  /** @throws FieldloopError `unavailable` while another server may have the database */
  #demandRight(): void {
    if (!this.#mayDecide)
      throw new FieldloopError(
        "unavailable",
        "Decide: the connection that holds the database is gone; try again",
      );
  }

  get #mayDecide(): boolean {
    return this.#options.mayDecide?.() ?? true;
  }

  #exclusive<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

/** What a person looks for first: what failed, then what is silent, then what moves or was stopped, then what is done, then what waits. */
function worstRank(state: RolloutDeviceState): number {
  if (state === "cancelled") return 2;
  if (hasFailed(state)) return 0;
  if (state === "silent") return 1;
  if (state === "active") return 3;
  return state === "waiting" || state === "skipped" ? 4 : 2;
}
