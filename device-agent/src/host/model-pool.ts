import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { PackageToRun, ProviderToRun } from "../ipc.js";
import { HostModel } from "./model.js";

interface Entry {
  readonly opening: Promise<HostModel>;
  users: number;
}

/** Open models: lanes that run the same package on the same execution provider share one. */
export class ModelPool {
  readonly #threadCount: number;
  readonly #laneRunMsMax: number;
  readonly #onProviderFailed: (error: FieldloopError) => void;
  readonly #entries = new Map<string, Entry>();
  readonly #keys = new Map<HostModel, string>();
  /** Execution providers that did not open a package, or failed while running it: not tried again by this host. */
  readonly #failed = new Set<string>();

  /** `threadCount` is that of each model; `laneRunMsMax`: a lane's model whose run takes longer gets a thread of its own. */
  constructor(threadCount: number, laneRunMsMax: number, onProviderFailed: (error: FieldloopError) => void) {
    this.#threadCount = threadCount;
    this.#laneRunMsMax = laneRunMsMax;
    this.#onProviderFailed = onProviderFailed;
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
        this.#onProviderFailed(providerFailed(provider.executionProvider, error));
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
    this.#onProviderFailed(providerFailed(executionProvider, error));
    return true;
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

  async #open(
    target: PackageToRun,
    provider: ProviderToRun | undefined,
    runMsMax: number,
  ): Promise<HostModel> {
    const key = keyOf(target, provider);
    const entry = this.#entries.get(key) ?? {
      opening: HostModel.load(
        target,
        { threadCount: this.#threadCount, runMsMax, isBusy: this.#keys.size > 0 },
        provider,
      ),
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
