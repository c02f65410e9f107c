import { join } from "node:path";
import {
  FieldloopError,
  formatModelVersion,
  type Evaluation,
  type Lineage,
  type LiveEvent,
} from "@fieldloop/protocol";
import type { BlobStore } from "../blob/blob.js";
import type { Clock, Logger } from "../context.js";
import { isValidationSample } from "../domain/split.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { EvaluationStore } from "../store/evaluations.js";
import type { Behind } from "../store/newest.js";
import type { StoredVersion } from "../store/registry.js";
import { TrainerChild, type TrainerLimits } from "../training/child.js";
import type { EvaluationBody } from "../training/job.js";
import { Workspace } from "../training/workspace.js";
import type { DatasetService } from "./datasets.js";
import type { NewId } from "./ids.js";
import type { RegistryService } from "./registry.js";

export interface EvaluationServiceOptions {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: NewId;
  readonly live: { publish(event: LiveEvent): void };
  readonly registry: RegistryService;
  readonly datasets: DatasetService;
  readonly workDir: string;
  readonly threadCount?: number;
  readonly limits?: Partial<TrainerLimits>;
}

export interface EvaluationRequest {
  readonly model: string;
  readonly base: number;
  readonly candidate: number;
  readonly snapshot: string;
}

const LIST_MAX = 200;

/** Evaluations: those that training runs bring, and those asked for by hand. */
export class EvaluationService {
  readonly #options: EvaluationServiceOptions;
  readonly #store: EvaluationStore;
  #running: TrainerChild | undefined;

  constructor(options: EvaluationServiceOptions) {
    this.#options = options;
    this.#store = new EvaluationStore(options.database);
  }

  async stop(): Promise<void> {
    await this.#running?.kill();
  }

  /** @throws FieldloopError `not_found` */
  async get(evaluation: string): Promise<Evaluation> {
    const stored = await this.#store.get(evaluation);
    if (!stored)
      throw new FieldloopError("not_found", `Read evaluation: there is no evaluation "${evaluation}"`);
    return stored;
  }

  /** Newest first. */
  async list(
    options: { model?: string; candidate?: number; before?: Behind; limit?: number } = {},
  ): Promise<Evaluation[]> {
    return this.#store.list({ ...options, limit: Math.min(options.limit ?? 50, LIST_MAX) });
  }

  /** Stores an evaluation as the newest evidence of its candidate. */
  async record(
    body: EvaluationBody & { readonly run: string | null },
    actor = "engine",
  ): Promise<Evaluation> {
    const { clock, newId, live, database } = this.#options;
    const evaluation: Evaluation = { ...body, evaluation: newId("evl"), created: clock.now() };
    await database.transaction(async (tx) => {
      await new EvaluationStore(tx).add(evaluation);
      await new AuditStore(tx).add({
        entry: newId("aud"),
        time: evaluation.created,
        actor,
        action: `evaluation.${evaluation.verdict}`,
        subject: `version:${formatModelVersion(body.model, body.candidate)}`,
        detail: { evaluation: evaluation.evaluation, base: body.base, reasons: body.reasons },
      });
    });
    live.publish({ type: "evaluation", id: evaluation.evaluation });
    live.publish({ type: "model", id: body.model });
    return evaluation;
  }

  /**
   * Evaluates one version against another now, in a process of its own, on those samples of a snapshot that neither was trained on.
   * @throws FieldloopError `not_found`, `invalid_argument`, `unavailable` while another one runs
   */
  async run(request: EvaluationRequest, actor: string): Promise<Evaluation> {
    const { registry, datasets, blobs, logger, newId } = this.#options;
    const { model, snapshot } = request;
    if (this.#running)
      throw new FieldloopError(
        "unavailable",
        "Evaluate: another evaluation is running; try again when it is done",
      );
    const base = await registry.require(model, request.base);
    const candidate = await registry.require(model, request.candidate);
    if ((await datasets.requireSnapshot(snapshot)).model !== model) {
      throw new FieldloopError(
        "invalid_argument",
        `Evaluate "${model}": the snapshot holds samples of another model`,
      );
    }
    const trained = await this.#trainedOn([base, candidate]);
    const workspace = new Workspace(join(this.#options.workDir, newId("job")), blobs);
    try {
      const job = {
        kind: "evaluate" as const,
        baseDir: await workspace.layPackage("base", base.packageSha256, base.manifest),
        candidateDir: await workspace.layPackage("candidate", candidate.packageSha256, candidate.manifest),
        items: (await workspace.layItems(datasets.itemsWithMedia(snapshot))).filter(
          ({ sample }) => !trained.has(sample),
        ),
        threadCount: this.#options.threadCount ?? 1,
      };
      const limits = this.#options.limits;
      this.#running = new TrainerChild(job, {
        onProgress: () => undefined,
        logger,
        ...(limits ? { limits } : {}),
      });
      return await this.record({ ...(await this.#running.result), run: null }, actor);
    } finally {
      this.#running = undefined;
      await workspace.remove();
    }
  }

  /** Samples that one of the versions, or a version it descends from, was trained on. */
  async #trainedOn(versions: readonly StoredVersion[]): Promise<Set<string>> {
    const trained = new Set<string>();
    for (const start of versions) {
      let version: StoredVersion | undefined = start;
      while (version) {
        const { snapshot, settings, base }: Lineage = version.manifest.lineage;
        const share = typeof settings["validationShare"] === "number" ? settings["validationShare"] : 0;
        if (snapshot !== null) {
          for await (const { sample } of this.#options.datasets.items(snapshot)) {
            if (!isValidationSample(sample, share)) trained.add(sample);
          }
        }
        version =
          base && base.model === version.model && base.version < version.version
            ? await this.#options.registry.find(base.model, base.version)
            : undefined;
      }
    }
    return trained;
  }
}
