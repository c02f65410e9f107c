import { setTimeout as sleep } from "node:timers/promises";
import { FieldloopError, toFieldloopError, type ErrorCode } from "@fieldloop/protocol";
import type { Frame, Prediction } from "@fieldloop/runtime";
import type { Clock, RandomSource } from "../clock.js";
import type { Activation, LaneBeat, LaneStart, PackageToRun, StartMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { sourceName } from "../source-spec.js";
import type { Outcome } from "./sources/source.js";
import { activationOf } from "./activation.js";
import { FrameQueue } from "./frame-queue.js";
import { Handover } from "./handover.js";
import { LaneProfile } from "./lane-profile.js";
import { LaneRunner } from "./lane-runner.js";
import { LaneSource } from "./lane-source.js";
import type { HostModel } from "./model.js";
import type { ModelPool } from "./model-pool.js";
import type { NumberBlocks } from "./numbers.js";
import { placesFor } from "./queue-places.js";
import { RateGate } from "./rate-gate.js";
import type { Send } from "./reporter.js";
import type { Task } from "./scheduler.js";

export interface LaneOptions {
  readonly start: StartMessage;
  readonly lane: LaneStart;
  /** This lane's part of the device's sampling. */
  readonly sampling: StartMessage["sampling"];
  readonly blocks: NumberBlocks;
  readonly pool: ModelPool;
  readonly send: Send;
  readonly clock: Clock;
  readonly random: RandomSource;
  /** It may be able to run now. */
  readonly onWaiting: () => void;
  /** The thread of a model on the processor has ended: nothing is left to fall back to but a new host. */
  readonly onDead: (error: FieldloopError) => void;
}

/** Codes by which an execution provider says that it is gone, whatever the frame was. */
const PROVIDER_GONE = new Set(["provider_unavailable", "unavailable", "timed_out"]);
/** Codes by which the thread of a model says that it has ended. */
const WORKER_GONE = new Set(["host_crashed", "unavailable"]);
/** A provider that fails on so many frames one after the other is given up. */
const RUN_FAILURES_MAX = 3;

/** One source with its queue, model, profile and sampler. The scheduler gives it its turns; a new model comes between two of them. */
export class Lane implements Task {
  readonly name: string;
  readonly priority: number;
  readonly #options: LaneOptions;
  readonly #queue: FrameQueue;
  readonly #handover: Handover;
  readonly #gate: RateGate;
  readonly #runner: LaneRunner;
  readonly #profile: LaneProfile;
  readonly #source: LaneSource;
  readonly #troubles = new Set<ErrorCode>();
  readonly #sourceTroubles = new Set<ErrorCode>();
  #queueMax: number;
  #model: HostModel | undefined;
  #target: PackageToRun | undefined;
  #changing: Promise<unknown> = Promise.resolve();
  #waitingSince: number | undefined;
  #runFailures = 0;
  /** Frames in a row that became predictions. */
  #goodInARow = 0;
  /** Its provider is gone: what comes waits for the next one. */
  #falling = false;
  #closed = false;
  #catchUpTimer: NodeJS.Timeout | undefined;

  constructor(options: LaneOptions) {
    const { start, lane, sampling, send, clock, random, blocks } = options;
    const { spec } = lane;
    this.#options = options;
    this.name = spec.name;
    this.priority = spec.priority;
    this.#queueMax = placesFor({ inputs: [] }, spec.batch);
    this.#queue = new FrameQueue(this.#queueMax);
    this.#queue.onFrame = () => this.#frameCame();
    this.#handover = new Handover(this.#queue);
    this.#gate = new RateGate(spec.rateMax, clock.monotonic());
    this.#profile = new LaneProfile(send, clock);
    this.#source = new LaneSource({
      spec: spec.source,
      firstIndex: start.boot * FRAMES_PER_BOOT + lane.numbers.next,
      queue: this.#queue,
      gate: this.#gate,
      clock,
      onTrouble: (error) => (error ? this.#sourceTroubled(error) : this.#sourceRecovered()),
      onFeedback: (items) => void send({ kind: "feedback", items }),
    });
    this.#runner = new LaneRunner({
      start,
      lane,
      sampling,
      sourceName: sourceName(spec.source),
      blocks,
      profile: this.#profile,
      send,
      clock,
      random,
      onPredicted: (key, n) => this.#source.predicted(key, n),
      onTrouble: (error) => this.#warn(error),
    });
  }

  get source(): LaneSource {
    return this.#source;
  }
  get sampler(): LaneRunner["sampler"] {
    return this.#runner.sampler;
  }
  /** A candidate that sees what the lane answers, one at a time. */
  get shadowing(): Pick<LaneRunner, "beginShadow" | "endShadow"> {
    return this.#runner;
  }
  /** Frames a second by its own option; Infinity without one. */
  get rateOwn(): number {
    return this.#options.lane.spec.rateMax ?? Number.POSITIVE_INFINITY;
  }
  get model(): HostModel | undefined {
    return this.#model;
  }

  /** What its package can run on, where that was tried. */
  get providers(): PackageToRun["providers"] {
    return this.#target?.providers;
  }

  // As the scheduler sees it

  get waitingSince(): number | undefined {
    const nothing = this.#model === undefined || this.#falling || this.#queue.length === 0;
    return nothing ? undefined : this.#waitingSince;
  }
  get resource(): HostModel | undefined {
    return this.#model;
  }
  get threadCount(): number {
    return this.#model?.threadCount ?? 1;
  }

  /** One batch, and where that was quick what else waits: a lane that needs little has it when it comes to its turn at last. */
  async run(): Promise<void> {
    const { clock } = this.#options;
    const model = this.#model;
    const end = clock.monotonic() + AGENT_LIMITS.laneTurnMs;
    do await this.#runBatch(model);
    while (
      model !== undefined &&
      this.#model === model &&
      this.waitingSince !== undefined &&
      clock.monotonic() < end
    );
    this.#waitingSince = clock.monotonic();
  }

  async #runBatch(model: HostModel | undefined): Promise<void> {
    const batch = this.#runner.times.batchOf(this.#queue.length, this.#options.lane.spec.batch);
    const count = this.#handover.turnBegins(batch);
    if (model) {
      const items = Array.from({ length: count }, () => this.#queue.tryTake()).filter(
        (item) => item !== undefined,
      );
      try {
        const { predicted, runError } = await this.#runner.run(model, items);
        this.#noteOutcome(predicted, items.length);
        this.#judgeProvider(model, predicted, runError);
      } catch (error) {
        this.#warn(toFieldloopError(error));
      }
    }
    this.#handover.turnEnds();
  }

  /**
   * Predicts on a frame that no source gave, in its turn among those of the source.
   * @throws FieldloopError `unavailable` where there is no model or the frame found no place, and why the frame failed
   */
  async push(
    frame: Frame,
    signal: AbortSignal,
  ): Promise<{ readonly id: string; readonly prediction: Prediction }> {
    const outcome = await new Promise<Outcome>((answer, reject) => {
      const item = { frame, time: this.#options.clock.now(), isGuest: true, answer } as const;
      this.#source.push(item, signal).catch(reject);
    });
    if (outcome === undefined) {
      throw new FieldloopError("unavailable", `Predict: lane "${this.name}" had no place for the frame`);
    }
    if (outcome instanceof FieldloopError) throw outcome;
    return outcome;
  }

  // What it runs

  /** Loads and warms beside the model that runs, then swaps between two turns. @throws FieldloopError with the old one still running */
  activate(target: PackageToRun): Promise<Activation> {
    return this.#change(async () => {
      const current = this.#model;
      if (current?.origin.packageSha256 === target.packageSha256) return activationOf(current, 0, 0, 0);
      return this.#replace(target, () => this.#options.pool.acquire(target));
    });
  }

  /**
   * Back to the first of its providers, swapped between two turns as a version is. Where that does not open, the next one does.
   * @throws FieldloopError `precondition_failed` where it runs another package by now; the old one runs on
   */
  reopen(target: PackageToRun): Promise<Activation> {
    return this.#change(async () => {
      if (this.#closed || this.#model?.origin.packageSha256 !== target.packageSha256)
        throw new FieldloopError(
          "precondition_failed",
          `Reopen in lane "${this.name}": it runs another package`,
        );
      this.#options.pool.forgive(target);
      return this.#replace(target, () => this.#options.pool.acquire(target));
    });
  }

  deactivate(): Promise<void> {
    return this.#change(async () => {
      const old = this.#model;
      this.#target = undefined;
      await this.#swap(undefined);
      if (old) await this.#options.pool.release(old);
    });
  }

  /**
   * Changes to another variant of `model`, on the same provider. Resolves with what runs for it then; undefined where the lane runs another
   * model by that time, or this variant already. @throws FieldloopError
   */
  useVariant(variant: string, model: HostModel): Promise<HostModel | undefined> {
    return this.#change(async () => {
      const { pool, send } = this.#options;
      const target = this.#target;
      if (this.#closed || this.#model !== model || !target || model.variant === variant) return undefined;
      const { executionProvider } = model;
      const activation = await this.#replace(target, () =>
        pool.acquireVariant(target, { executionProvider, variant }),
      );
      await send({ kind: "changed", lane: this.name, activation });
      return this.#model;
    });
  }

  /** Frames a second that the governor allows; undefined takes the limit away. */
  limitRate(rateMax: number | undefined): void {
    this.#gate.limit(rateMax);
  }

  setSampling(sampling: StartMessage["sampling"]): void {
    this.sampler.setPolicy(sampling, this.#options.clock.monotonic());
  }

  /** Called every now and then: sampler windows and profiles end. `isRestricted`: the device cannot do all that it is asked for. */
  tick(profileIntervalMs: number, isRestricted: boolean): void {
    this.#runner.tick(isRestricted);
    if (this.#profile.isDue(profileIntervalMs)) this.#cutProfile();
  }

  beat(rateMax: number | null): LaneBeat {
    return {
      name: this.name,
      runningMs: this.#runner.runningMs,
      expectedMs: this.#runner.expectedMs,
      framesSeen: this.#queue.seen + this.#source.framesSkipped,
      framesDropped: this.#queue.dropped,
      framesSkipped: this.#source.framesSkipped,
      framesFailed: this.#runner.framesFailed,
      sourceCounts: this.#source.counts,
      rateMax,
    };
  }

  /** No frame comes any more; a run in hand goes on. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#catchUpTimer);
    await this.#source.close();
    this.#queue.close();
    this.#handover.settle();
  }

  /** After the last turn: says what is left, and gives the model back. */
  async finish(): Promise<void> {
    await this.#changing.catch(() => undefined);
    this.#cutProfile();
    await this.#runner.close();
    if (this.#model) await this.#options.pool.release(this.#model);
    this.#model = undefined;
  }

  /** One after the other: a change by the governor must not meet one by the fleet. */
  #change<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#changing.then(work, work);
    this.#changing = done.catch(() => undefined);
    return done;
  }

  async #replace(target: PackageToRun, open: () => Promise<HostModel>): Promise<Activation> {
    const droppedBefore = this.#queue.dropped;
    const old = this.#model;
    clearTimeout(this.#catchUpTimer);
    this.#queue.resize(AGENT_LIMITS.frameQueueSwapMax);
    let next: HostModel;
    let swapGapMs: number;
    try {
      next = await open();
      this.#target = target;
      this.#queueMax = placesFor(next.manifest, this.#options.lane.spec.batch);
      swapGapMs = await this.#swap(next);
      if (old) await sleep(AGENT_LIMITS.openStepPauseMs);
      // That the old one does not end in order, as where its driver died, is no failure of the new one.
      if (old)
        await this.#options.pool.release(old).catch((error: unknown) => this.#warn(toFieldloopError(error)));
    } finally {
      this.#queue.shrinkWhenDrained(this.#queueMax);
      // A model too slow to catch up must not lag behind its camera for ever.
      clearTimeout(this.#catchUpTimer);
      this.#catchUpTimer = setTimeout(
        () => this.#queue.resize(this.#queueMax),
        AGENT_LIMITS.frameCatchUpMs,
      ).unref();
    }
    const framesDropped = this.#queue.dropped - droppedBefore;
    await this.#source.openOnce();
    return activationOf(next, Math.round(next.loadMs), swapGapMs, framesDropped);
  }

  /** Milliseconds that the lane could take no frame: what is done between two turns is an assignment. */
  #swap(next: HostModel | undefined): Promise<number> {
    return new Promise((resolve) => {
      const swap = (): void => {
        const begin = performance.now();
        this.#cutProfile();
        this.#runner.modelChanged();
        this.#model = next;
        this.#runFailures = 0;
        if (next) this.#options.onWaiting();
        else this.#refuseAll();
        resolve(performance.now() - begin);
      };
      if (next) this.#source.shapeFor(next.manifest);
      this.#handover.begin(swap, next?.manifest.inputs);
    });
  }

  #frameCame(): void {
    if (!this.#model) return this.#refuseAll();
    if (this.#queue.length === 1) this.#waitingSince = this.#options.clock.monotonic();
    this.#options.onWaiting();
  }

  /** Without a model a frame is not kept: it would be old when there is one. */
  #refuseAll(): void {
    for (let item = this.#queue.tryTake(); item; item = this.#queue.tryTake()) {
      item.answer?.(new FieldloopError("unavailable", "Predict: no model is active yet"));
    }
  }

  /** What was told of single frames is over when many in a row are good: one bad frame in ten must not tell of itself for ever. */
  #noteOutcome(predicted: number, count: number): void {
    this.#goodInARow = predicted === count ? this.#goodInARow + count : 0;
    if (this.#goodInARow < AGENT_LIMITS.framesHealthy) return;
    for (const code of this.#troubles) if (!this.#sourceTroubles.has(code)) this.#clear(code);
  }

  /** A provider that is gone, or fails on every frame, is left for the next one. */
  #judgeProvider(model: HostModel, predicted: number, error: FieldloopError | undefined): void {
    if (predicted > 0 || !error) {
      if (predicted > 0) this.#runFailures = 0;
      return;
    }
    this.#runFailures++;
    if (model.executionProvider === "cpu") {
      if (WORKER_GONE.has(error.code)) this.#options.onDead(error);
      return;
    }
    const isGone = PROVIDER_GONE.has(error.code);
    const fails = error.code === "model_run_failed" || error.code === "host_crashed";
    const target = this.#target;
    if (!target || !(isGone || (fails && this.#runFailures >= RUN_FAILURES_MAX))) return;
    this.#fallBack(target, model, error).catch((reason: unknown) => this.#warn(toFieldloopError(reason)));
  }

  async #fallBack(target: PackageToRun, model: HostModel, error: FieldloopError): Promise<void> {
    const { pool, send, onWaiting } = this.#options;
    this.#falling = true;
    try {
      await this.#change(async () => {
        if (this.#closed || this.#model !== model || !pool.giveUp(target, model, error)) return;
        const activation = await this.#replace(target, () => pool.acquire(target));
        await send({ kind: "changed", lane: this.name, activation });
      });
    } finally {
      this.#falling = false;
      onWaiting();
    }
  }

  #cutProfile(): void {
    this.#profile.cut(this.#model?.origin, this.#queue.dropped);
  }

  #warn(error: FieldloopError): void {
    const { code, message } = error;
    this.#troubles.add(code);
    void this.#options.send({ kind: "warning", failure: { code, message }, active: true, lane: this.name });
  }

  #sourceTroubled(error: FieldloopError): void {
    this.#sourceTroubles.add(error.code);
    this.#warn(error);
  }

  #sourceRecovered(): void {
    for (const code of this.#sourceTroubles) this.#clear(code);
    this.#sourceTroubles.clear();
  }

  #clear(code: ErrorCode): void {
    if (!this.#troubles.delete(code)) return;
    void this.#options.send({
      kind: "warning",
      failure: { code, message: "" },
      active: false,
      lane: this.name,
    });
  }
}

/** Scenes of a simulator begin so far apart that no start of the agent shows a frame of another. */
const FRAMES_PER_BOOT = 10_000_000;
