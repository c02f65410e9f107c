import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { PackageToRun, ProviderToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { HostModel } from "./model.js";

interface Entry {
  readonly key: string;
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
  /** What {@link acquire} shares. */
  readonly #entries = new Map<string, Entry>();
  /** What is open; one that was given up is there as long as somebody uses it. */
  readonly #open = new Map<HostModel, Entry>();
  /** Execution providers that did not open a package, or failed while running it: not tried again before {@link forgive}. */
  readonly #failed = new Set<string>();

  constructor(options: ModelPoolOptions) {
    this.#options = options;
  }

  get models(): readonly HostModel[] {
    return [...this.#open.keys()];
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
        return await this.#openOnce(target, provider, runMsMax);
      } catch (error) {
        this.#failed.add(key);
        this.#options.onProviderFailed(providerFailed(provider.executionProvider, error));
      }
    }
    return this.#openOnce(target, undefined, runMsMax);
  }

  /** Opens one variant on the provider that another one runs on. @throws FieldloopError */
  acquireVariant(target: PackageToRun, provider: ProviderToRun): Promise<HostModel> {
    return this.#openOnce(target, provider, this.#laneRunMsMax);
  }

  /** The provider of a model failed while running: {@link acquire} gives the next one. False where there is none. */
  giveUp(target: PackageToRun, model: HostModel, error: FieldloopError): boolean {
    const { executionProvider, variant } = model;
    if (executionProvider === "cpu") return false;
    // Another lane may hold it still: whoever tries the provider again gets one that is opened anew.
    this.#unshare(this.#open.get(model));
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
    const entry = this.#open.get(model);
    if (!entry) throw new FieldloopError("not_found", `Use model "${model.origin.model}": it is closed`);
    entry.users++;
  }

  /** The last lane that gives a model back closes it. After its last run. */
  async release(model: HostModel): Promise<void> {
    const entry = this.#open.get(model);
    if (!entry || --entry.users > 0) return;
    this.#unshare(entry);
    this.#open.delete(model);
    await model.close();
  }

  #unshare(entry: Entry | undefined): void {
    if (entry && this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
  }

  get #laneRunMsMax(): number {
    return this.#options.isShared ? AGENT_LIMITS.sharedRunMsMax : AGENT_LIMITS.loneRunMsMax;
  }

  async #openOnce(
    target: PackageToRun,
    provider: ProviderToRun | undefined,
    runMsMax: number,
  ): Promise<HostModel> {
    const key = keyOf(target, provider);
    const { threadCount, isShared } = this.#options;
    const carryingRunMsMax = isShared ? Math.min(runMsMax, AGENT_LIMITS.quickRunMsMax) : runMsMax;
    const options = { threadCount, runMsMax, carryingRunMsMax, isBusy: this.#open.size > 0 };
    const entry = this.#entries.get(key) ?? {
      key,
      opening: HostModel.load(target, options, provider),
      users: 0,
    };
    this.#entries.set(key, entry);
    entry.users++;
    try {
      const model = await entry.opening;
      this.#open.set(model, entry);
      return model;
    } catch (error) {
      this.#unshare(entry);
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
