import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  formatModelVersion,
  isFinal,
  manifestFiles,
  toFieldloopError,
  TRAINING,
  type LiveEvent,
  type TrainingRun,
  type TrainingSettings,
} from "@fieldloop/protocol";
import { MANIFEST_FILE } from "@fieldloop/runtime";
import { openPackage } from "@fieldloop/runtime/node";
import type { BlobStore } from "../blob/blob.js";
import type { Clock, Logger } from "../context.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import type { Behind } from "../store/newest.js";
import { SampleStore } from "../store/samples-annotations.js";
import { TrainingStore } from "../store/training.js";
import { TrainerChild, type TrainerLimits } from "../training/child.js";
import type { EvaluationBody, ProgressMessage } from "../training/job.js";
import { Workspace } from "../training/workspace.js";
import type { DatasetService } from "./datasets.js";
import type { EvaluationService } from "./evaluation.js";
import type { NewId } from "./ids.js";
import type { RegistryService } from "./registry.js";

export interface TrainingServiceOptions {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: NewId;
  readonly live: { publish(event: LiveEvent): void };
  readonly registry: RegistryService;
  readonly datasets: DatasetService;
  readonly evaluations: EvaluationService;
  /** Folder for jobs in progress. */
  readonly workDir: string;
  readonly threadCount?: number;
  readonly limits?: Partial<TrainerLimits>;
}

export interface TrainingRequest {
  readonly model: string;
  readonly baseVersion: number;
  readonly snapshot: string;
  readonly settings: TrainingSettings;
}

const QUEUE_MAX = 20;
const LIST_MAX = 200;
/** Losses kept for the curve; a long run is thinned to every n-th. */
const LOSSES_MAX = 400;

/** Who the registry says published a run's candidate. */
function publisherOf(run: TrainingRun): string {
  return `training ${run.run}`;
}

/**
 * Training runs, one at a time, each in a process of its own. A run that was under way when the server died is started again and
 * goes on from its last checkpoint: the same seed, data and thread count give the same candidate.
 */
export class TrainingService {
  readonly #options: TrainingServiceOptions;
  readonly #store: TrainingStore;
  #current: { readonly run: string; readonly child: TrainerChild } | undefined;
  #worker: Promise<void> | undefined;
  #stopped = true;
  /** The curve of the current run; every `#stride`-th report of its process. */
  #losses: number[] = [];
  #stride = 1;
  #reports = 0;
  /** Writes of progress follow each other; a new one replaces one that has not begun. */
  #noting: Promise<void> = Promise.resolve();
  #latest: ProgressMessage | undefined;

  constructor(options: TrainingServiceOptions) {
    this.#options = options;
    this.#store = new TrainingStore(options.database);
  }

  async start(): Promise<void> {
    this.#stopped = false;
    this.#wake();
  }

  /** Ends the trainer process; its run goes on at the next start. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#current?.child.kill();
    await this.#worker;
  }

  /** @throws FieldloopError `not_found`, `invalid_argument` for a snapshot of another model, `limit_exceeded` with a full queue */
  async create(request: TrainingRequest, actor: string): Promise<TrainingRun> {
    const { model, baseVersion, snapshot, settings } = request;
    await this.#options.registry.require(model, baseVersion);
    const stored = await this.#options.datasets.requireSnapshot(snapshot);
    if (stored.model !== model) {
      throw new FieldloopError(
        "invalid_argument",
        `Train "${model}": the snapshot holds samples of "${stored.model}"`,
      );
    }
    const waiting = (await this.#store.inState("queued")).length;
    if (waiting >= QUEUE_MAX)
      throw new FieldloopError("limit_exceeded", `Train: ${waiting} runs are waiting, at most ${QUEUE_MAX}`);
    const run: TrainingRun = {
      run: this.#options.newId("trn"),
      model,
      baseVersion,
      snapshot,
      settings,
      state: "queued",
      created: this.#options.clock.now(),
      started: null,
      finished: null,
      progress: { step: 0, steps: settings.steps, loss: null, losses: [], message: "waiting" },
      candidate: null,
      errorCode: null,
      errorMessage: null,
    };
    await this.#options.database.transaction(async (tx) => {
      await new TrainingStore(tx).add(run, actor);
      await new SampleStore(tx).setSnapshotStatus(snapshot, ["new", "confirmed", "regressed"], "in_training");
      await this.#audit(tx, actor, "training.created", run.run, { model, baseVersion, snapshot });
    });
    this.#changed(run.run);
    this.#wake();
    return run;
  }

  /** @throws FieldloopError `not_found` */
  async get(run: string): Promise<TrainingRun> {
    const stored = await this.#store.get(run);
    if (!stored) throw new FieldloopError("not_found", `Read training run: there is no run "${run}"`);
    return stored;
  }

  async list(options: { model?: string; before?: Behind; limit?: number } = {}): Promise<TrainingRun[]> {
    return this.#store.list({ ...options, limit: Math.min(options.limit ?? 50, LIST_MAX) });
  }

  async countRunning(): Promise<number> {
    return (await this.#store.inState("queued", "running", "evaluating")).length;
  }

  /** @throws FieldloopError `not_found`, `conflict` for a run that has ended */
  async cancel(run: string, actor: string): Promise<TrainingRun> {
    const stored = await this.get(run);
    if (isFinal(TRAINING, stored.state)) {
      throw new FieldloopError("conflict", `Cancel training run "${run}": it is "${stored.state}" already`);
    }
    await this.#options.database.transaction(async (tx) =>
      this.#audit(tx, actor, "training.cancelled", run, {}),
    );
    if (this.#current?.run === run) this.#current.child.cancel();
    await this.#end(stored, "cancelled", new FieldloopError("cancelled", `Cancelled by ${actor}`));
    return this.get(run);
  }

  #wake(): void {
    this.#worker ??= this.#work()
      .catch((error: unknown) => this.#options.logger.error({ err: error }, "training worker failed"))
      .then(() => {
        this.#worker = undefined;
      });
  }

  async #work(): Promise<void> {
    while (!this.#stopped) {
      const [next] = await this.#store.inState("running", "evaluating", "queued");
      if (!next) return;
      await this.#carry(next);
    }
  }

  /** One run to its end; an end that was stopped by the server leaves the run to the next start. */
  async #carry(run: TrainingRun): Promise<void> {
    const workspace = new Workspace(join(this.#options.workDir, run.run), this.#options.blobs);
    try {
      await this.#store.move(run.run, ["queued"], "running", { started: this.#options.clock.now() });
      this.#changed(run.run);
      if (await this.#publishedBefore(run)) return await workspace.remove();
      const evaluation = await this.#train(run, workspace);
      if (this.#stopped) return;
      await this.#finish(run, workspace, evaluation);
      await workspace.remove();
    } catch (error) {
      if (this.#stopped) return;
      const coded = toFieldloopError(error);
      this.#options.logger.warn({ err: error, run: run.run }, "training run failed");
      await this.#end(run, coded.code === "cancelled" ? "cancelled" : "failed", coded);
      await workspace.remove();
    }
  }

  async #train(run: TrainingRun, workspace: Workspace): Promise<EvaluationBody> {
    const { registry, datasets } = this.#options;
    const base = await registry.require(run.model, run.baseVersion);
    const baseDir = await workspace.layPackage("base", base.packageSha256, base.manifest);
    const items = await workspace.layItems(datasets.itemsWithMedia(run.snapshot));
    const outDir = workspace.path("candidate");
    await rm(outDir, { recursive: true, force: true });
    if ((await this.get(run.run)).state === "cancelled")
      throw new FieldloopError("cancelled", "Train: cancelled");
    const child = new TrainerChild(
      {
        kind: "train",
        run: run.run,
        baseDir,
        outDir,
        checkpointFile: workspace.path("checkpoint.bin"),
        version: await registry.nextNumber(run.model),
        created: new Date(run.created).toISOString(),
        snapshot: run.snapshot,
        items,
        settings: run.settings,
        threadCount: this.#options.threadCount ?? 1,
      },
      {
        onProgress: (progress) => this.#note(run.run, progress),
        logger: this.#options.logger,
        ...(this.#options.limits ? { limits: this.#options.limits } : {}),
      },
    );
    this.#current = { run: run.run, child };
    try {
      if (this.#stopped) await child.kill();
      return await child.result;
    } finally {
      this.#current = undefined;
      await this.#noting;
      this.#losses = [];
    }
  }

  #note(run: string, progress: ProgressMessage): void {
    if (progress.phase === "training" && progress.loss !== null) this.#keepLoss(progress.loss);
    const waiting = this.#latest !== undefined;
    this.#latest = progress;
    if (waiting) return;
    this.#noting = this.#noting
      .then(async () => {
        const { phase, step, steps, loss, message } = this.#latest!;
        this.#latest = undefined;
        const losses = [...this.#losses];
        if (phase === "evaluating") await this.#store.move(run, ["running"], "evaluating");
        await this.#store.setProgress(run, {
          step,
          steps,
          loss: loss ?? losses.at(-1) ?? null,
          losses,
          message,
        });
        this.#changed(run);
      })
      .catch((error: unknown) =>
        this.#options.logger.warn({ err: error, run }, "training progress not stored"),
      );
  }

  #keepLoss(loss: number): void {
    if (this.#losses.length === 0) {
      this.#stride = 1;
      this.#reports = 0;
    }
    if (this.#reports++ % this.#stride === 0) this.#losses.push(loss);
    if (this.#losses.length < LOSSES_MAX) return;
    this.#losses = this.#losses.filter((_, at) => at % 2 === 0);
    this.#stride *= 2;
  }

  /** Uploads and publishes the candidate and stores its evaluation; each part may be there already from before a crash. */
  async #finish(run: TrainingRun, workspace: Workspace, evaluation: EvaluationBody): Promise<void> {
    const { blobs, registry, evaluations } = this.#options;
    await this.#store.move(run.run, ["running"], "evaluating");
    const candidate = await openPackage(workspace.path("candidate"));
    for (const { file, sha256 } of manifestFiles(candidate.manifest)) {
      await blobs.put(new Uint8Array(await readFile(join(candidate.dir, file))), { sha256 });
    }
    await blobs.put(new Uint8Array(await readFile(join(candidate.dir, MANIFEST_FILE))), {
      sha256: candidate.packageSha256,
    });
    if ((await this.get(run.run)).state === "cancelled") return;
    // The evidence is there before the version: nobody sees a candidate that was never evaluated.
    await evaluations.record({ ...evaluation, run: run.run });
    const { version } = await registry.publish(run.model, candidate.packageSha256, publisherOf(run));
    await this.#succeed(run, version);
  }

  /** The server died between publishing the candidate and noting so. */
  async #publishedBefore(run: TrainingRun): Promise<boolean> {
    const version = await this.#options.registry.findPublishedBy(run.model, publisherOf(run));
    if (!version) return false;
    await this.#store.move(run.run, ["running"], "evaluating");
    await this.#succeed(run, version.version);
    return true;
  }

  async #succeed(run: TrainingRun, candidate: number): Promise<void> {
    const finished = this.#options.clock.now();
    if (!(await this.#store.move(run.run, ["evaluating"], "succeeded", { finished, candidate }))) return;
    await this.#options.database.transaction(async (tx) =>
      this.#audit(tx, "engine", "training.succeeded", run.run, {
        candidate: formatModelVersion(run.model, candidate),
      }),
    );
    this.#changed(run.run);
  }

  async #end(run: TrainingRun, state: "failed" | "cancelled", error: FieldloopError): Promise<void> {
    const moved = await this.#store.move(run.run, ["queued", "running", "evaluating"], state, {
      finished: this.#options.clock.now(),
      errorCode: error.code,
      errorMessage: error.message,
    });
    if (!moved) return;
    await new SampleStore(this.#options.database).setSnapshotStatus(
      run.snapshot,
      ["in_training"],
      "confirmed",
    );
    await this.#options.database.transaction(async (tx) =>
      this.#audit(tx, "engine", `training.${state}`, run.run, { code: error.code, message: error.message }),
    );
    this.#changed(run.run);
  }

  #changed(run: string): void {
    this.#options.live.publish({ type: "training", id: run });
  }

  async #audit(
    tx: Database,
    actor: string,
    action: string,
    run: string,
    detail: Record<string, unknown>,
  ): Promise<void> {
    const time = this.#options.clock.now();
    await new AuditStore(tx).add({
      entry: this.#options.newId("aud"),
      time,
      actor,
      action,
      subject: `training:${run}`,
      detail,
    });
  }
}
