import { FieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "@fieldloop/runtime";
import type { Clock } from "../clock.js";
import type {
  InferInput,
  LoadedModelEntry,
  LocalRequest,
  LocalResponses,
  ModelChoice,
} from "../ipc-local.js";
import type { PackageToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { tensorBytes } from "../tensor-size.js";
import { type LocalRun, LocalTask } from "./local-task.js";
import type { HostModel } from "./model.js";
import type { ModelPool } from "./model-pool.js";
import type { Task } from "./scheduler.js";

export interface LocalRunsOptions {
  /** What the lanes run at this moment, in their order. */
  readonly lanes: readonly { readonly name: string; readonly model: HostModel | undefined }[];
  readonly pool: ModelPool;
  readonly clock: Clock;
  /** Something may be able to run now. */
  readonly onWaiting: () => void;
}

type InferRequest = Extract<LocalRequest, { kind: "infer" }>;

/**
 * Inferences that programs on this machine ask for: on the session of the lane that runs the model, or on one that was loaded for them.
 * Each waits for its turn among the frames of the lanes; while it waits, its model stays open whatever the lane changes to.
 */
export class LocalRuns {
  /** One for each model that something waits for, as the scheduler wants them. */
  readonly tasks = new Set<Task>();
  readonly #options: LocalRunsOptions;
  readonly #byModel = new Map<HostModel, LocalTask>();
  /** Loaded on demand, by package. */
  readonly #loaded = new Map<string, HostModel>();
  #changing: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: LocalRunsOptions) {
    this.#options = options;
  }

  /** How long the longest run in hand takes already; 0 where none is. */
  get runningMs(): number {
    return Math.max(0, ...[...this.#byModel.values()].map((task) => task.runningMs));
  }

  /** @throws FieldloopError `not_found`, `rate_limited`, `timed_out`, `cancelled`, `tensor_invalid`, `limit_exceeded`, and those of a run */
  async infer(request: InferRequest, signal: AbortSignal): Promise<LocalResponses["infer"]> {
    const model = this.#find(request);
    const { input, outputs: fetches, timeoutMs } = request;
    const outputs = await this.#inTurn(model, timeoutMs, signal, () => run(model, input, fetches));
    checkSize(outputs);
    return { model: model.origin.model, version: model.origin.version, outputs };
  }

  /** Loads a package beside what the lanes run. @throws FieldloopError `limit_exceeded`, and those of loading */
  load(target: PackageToRun): Promise<void> {
    return this.#change(async () => {
      const { packageSha256 } = target;
      if (this.#loaded.has(packageSha256)) return;
      if (this.#loaded.size >= AGENT_LIMITS.localModelsMax) {
        throw new FieldloopError(
          "limit_exceeded",
          `Load model: ${this.#loaded.size} are loaded on demand, at most ${AGENT_LIMITS.localModelsMax}; unload one`,
        );
      }
      this.#loaded.set(packageSha256, await this.#options.pool.acquire(target, AGENT_LIMITS.quickRunMsMax));
    });
  }

  /** Gives back what was loaded on demand; what waits for it is run first. @throws FieldloopError `conflict` where a lane runs it */
  unload(choice: ModelChoice): Promise<void> {
    return this.#change(async () => {
      const asked = [...this.#loaded].filter(([, model]) => fits(model, choice));
      const lane = this.#options.lanes.find(({ model }) => model && fits(model, choice));
      if (asked.length === 0 && lane) {
        const message = `Unload model "${choice.model}": lane "${lane.name}" runs it, the fleet decides about that`;
        throw new FieldloopError("conflict", message);
      }
      for (const [packageSha256, model] of asked) {
        this.#loaded.delete(packageSha256);
        await this.#options.pool.release(model);
      }
    });
  }

  /** @throws FieldloopError `not_found` */
  metadata(choice: ModelChoice): LocalResponses["model_metadata"] {
    const { origin, executionProvider, inputs, outputs } = this.#find(choice);
    return { model: origin.model, version: origin.version, executionProvider, inputs, outputs };
  }

  /** What can be asked right now: first what lanes run. */
  list(): LoadedModelEntry[] {
    const lanesOf = new Map<HostModel, string[]>();
    for (const { name, model } of this.#options.lanes) {
      if (model) lanesOf.set(model, [...(lanesOf.get(model) ?? []), name]);
    }
    for (const model of this.#loaded.values()) lanesOf.set(model, lanesOf.get(model) ?? []);
    return [...lanesOf].map(([{ origin }, lanes]) => ({
      model: origin.model,
      version: origin.version,
      packageSha256: origin.packageSha256,
      lanes,
    }));
  }

  /** Nothing more is taken, and what waits is refused; runs in hand go on. */
  close(): void {
    this.#closed = true;
    const error = new FieldloopError("unavailable", "Infer: the inference host is stopping");
    for (const task of this.#byModel.values()) task.refuseAll(error);
  }

  /** After the last run. */
  async finish(): Promise<void> {
    await this.#changing;
    for (const model of this.#loaded.values()) await this.#options.pool.release(model);
    this.#loaded.clear();
  }

  #find(choice: ModelChoice): HostModel {
    const inLane = this.#options.lanes.find(({ model }) => model && fits(model, choice))?.model;
    const onDemand = [...this.#loaded.values()]
      .filter((model) => fits(model, choice))
      .sort((a, b) => b.origin.version - a.origin.version)[0];
    const found = inLane ?? onDemand;
    if (found) return found;
    const version = choice.version === undefined ? "" : ` version ${choice.version}`;
    throw new FieldloopError("not_found", `Infer: model "${choice.model}"${version} is not loaded`);
  }

  /** Runs when the scheduler says so. */
  async #inTurn<Result>(
    model: HostModel,
    timeoutMs: number,
    signal: AbortSignal,
    work: () => Promise<Result>,
  ): Promise<Result> {
    if (this.#closed) throw new FieldloopError("unavailable", "Infer: the inference host is stopping");
    const waiting = [...this.#byModel.values()].reduce((sum, task) => sum + task.waiting, 0);
    if (waiting >= AGENT_LIMITS.localWaitingMax) {
      throw new FieldloopError("rate_limited", `Infer: ${waiting} wait already, try again later`);
    }
    const { pool, clock, onWaiting } = this.#options;
    pool.retain(model);
    const task = this.#byModel.get(model) ?? this.#addTask(model, clock);
    try {
      const result = new Promise<Result>((resolve, reject) => {
        const run: LocalRun = { run: async () => resolve(await work()), reject };
        task.add(run, timeoutMs, signal);
      });
      onWaiting();
      return await result;
    } finally {
      await pool.release(model);
    }
  }

  #addTask(model: HostModel, clock: Clock): LocalTask {
    const task = new LocalTask(model, clock, () => {
      if (this.#byModel.get(model) === task) this.#byModel.delete(model);
      this.tasks.delete(task);
    });
    this.#byModel.set(model, task);
    this.tasks.add(task);
    return task;
  }

  #change<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#changing.then(work);
    this.#changing = done.catch(() => undefined);
    return done;
  }
}

function run(
  model: HostModel,
  input: InferInput,
  fetches: readonly string[] | undefined,
): Promise<Record<string, Tensor>> {
  return "feeds" in input ? model.runTensors(input.feeds, fetches) : model.runImage(input.image, fetches);
}

function fits({ origin }: HostModel, { model, version }: ModelChoice): boolean {
  return origin.model === model && (version === undefined || origin.version === version);
}

/** An answer crosses to control as a copy. @throws FieldloopError `limit_exceeded` */
function checkSize(outputs: Readonly<Record<string, Tensor>>): void {
  const bytes = Object.values(outputs).reduce((sum, { data }) => sum + tensorBytes(data), 0);
  if (bytes <= AGENT_LIMITS.localTensorBytesMax) return;
  throw new FieldloopError(
    "limit_exceeded",
    `Infer: outputs of ${bytes} bytes, at most ${AGENT_LIMITS.localTensorBytesMax}; ask for fewer of them`,
  );
}
