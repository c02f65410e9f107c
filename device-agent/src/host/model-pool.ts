import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { PackageToRun, ProviderToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { HostModel } from "./model.js";

interface Entry {
  readonly opening: Promise<HostModel>;
  users: number;
}

export interface ModelPoolOptions {
  /** Of each model. */
  readonly threadCount: number;
  /** Several lanes run their models beside one another. */
  readonly isShared: boolean;
  readonly onProviderFailed: (error: FieldloopError) => void;
}

/** Open models: lanes that run the same package on the same execution provider share one. */
export class ModelPool {
  readonly #options: ModelPoolOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #keys = new Map<HostModel, string>();
  /** Execution providers that did not open a package, or failed while running it: not tried again before {@link forgive}. */
  readonly #failed = new Set<string>();

  constructor(options: ModelPoolOptions) {
    this.#options = options;
  }

  get models(): readonly HostModel[] {
    return [...this.#keys.keys()];
  }

  /**
   * Opens the package on the first of its providers that works, on the CPU in the end. `runMsMax` is a lane's by default.
   * @throws FieldloopError why it does not open on the CPU
   */
  async acquire(target: PackageToRun, runMsMax = this.#laneRunMsMax): Promise<HostModel> {
    for (const provider of target.providers ?? []) {
      const key = keyOf(target, provider);
      if (this.#failed.has(key)) continue;
      try {
        return await this.#open(target, provider, runMsMax);
      } catch (error) {
        this.#failed.add(key);
        this.#options.onProviderFailed(providerFailed(provider.executionProvider, error));
      }
    }
    return this.#open(target, undefined, runMsMax);
  }

  /** Opens one variant on the provider that another one runs on. @throws FieldloopError */
  acquireVariant(target: PackageToRun, provider: ProviderToRun): Promise<HostModel> {
    return this.#open(target, provider, this.#laneRunMsMax);
  }

  /** The provider of a model failed while running: {@link acquire} gives the next one. False where there is none. */
  giveUp(target: PackageToRun, model: HostModel, error: FieldloopError): boolean {
    const { executionProvider, variant } = model;
    if (executionProvider === "cpu") return false;
    this.#failed.add(keyOf(target, { executionProvider, variant }));
    this.#options.onProviderFailed(providerFailed(executionProvider, error));
    return true;
  }

  /** Providers of the package that failed may be tried again. */
  forgive({ packageSha256 }: PackageToRun): void {
    for (const key of this.#failed) if (key.startsWith(packageSha256)) this.#failed.delete(key);
  }

  /** One more user of a model that is open: it is released once more. @throws FieldloopError `not_found` where it is not */
  retain(model: HostModel): void {
    const key = this.#keys.get(model);
    const entry = key === undefined ? undefined : this.#entries.get(key);
    if (!entry) throw new FieldloopError("not_found", `Use model "${model.origin.model}": it is closed`);
    entry.users++;
  }

  /** The last lane that gives a model back closes it. After its last run. */
  async release(model: HostModel): Promise<void> {
    const key = this.#keys.get(model);
    const entry = key === undefined ? undefined : this.#entries.get(key);
    if (key === undefined || !entry || --entry.users > 0) return;
    this.#entries.delete(key);
    this.#keys.delete(model);
    await model.close();
  }

  get #laneRunMsMax(): number {
    return this.#options.isShared ? AGENT_LIMITS.sharedRunMsMax : AGENT_LIMITS.loneRunMsMax;
  }

  async #open(
    target: PackageToRun,
    provider: ProviderToRun | undefined,
    runMsMax: number,
  ): Promise<HostModel> {
    const key = keyOf(target, provider);
    const { threadCount, isShared } = this.#options;
    const carryingRunMsMax = isShared ? Math.min(runMsMax, AGENT_LIMITS.quickRunMsMax) : runMsMax;
    const options = { threadCount, runMsMax, carryingRunMsMax, isBusy: this.#keys.size > 0 };
    const entry = this.#entries.get(key) ?? {
      opening: HostModel.load(target, options, provider),
      users: 0,
    };
    this.#entries.set(key, entry);
    entry.users++;
    try {
      const model = await entry.opening;
      this.#keys.set(model, key);
      return model;
    } catch (error) {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
      throw error;
    }
  }
}

function keyOf({ packageSha256 }: PackageToRun, provider: ProviderToRun | undefined): string {
  return provider ? `${packageSha256} ${provider.executionProvider} ${provider.variant}` : packageSha256;
}

function providerFailed(executionProvider: string, error: unknown): FieldloopError {
  const { code, message } = toFieldloopError(error);
  return new FieldloopError(
    "provider_failed",
    `Run on "${executionProvider}": it failed and the next one takes over (${code}: ${message})`.slice(
      0,
      500,
    ),
  );
}
