import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type {
  InferenceService,
  OipInferRequest,
  OipInferResponse,
  OipModelIndexEntry,
  OipModelMetadata,
  OipServerMetadata,
  OipTensorMetadata,
  TensorInfo,
} from "@fieldloop/runtime";
import { datatypeOf } from "@fieldloop/runtime/oip";
import type { InferInput, LoadedModelEntry, ModelChoice } from "../ipc-local.js";
import type { PackageToRun } from "../ipc.js";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import { tensorBytes } from "../tensor-size.js";
import { ByteBudget } from "./byte-budget.js";
import type { CatalogEntry, PackageCatalog } from "./package-catalog.js";
import type { Supervisor } from "./supervisor.js";

export interface LocalInferenceOptions {
  readonly host: Pick<Supervisor, "ready" | "request" | "heartbeat">;
  readonly catalog: PackageCatalog;
  /** The package with what it is to be run on. */
  readonly toRun: (packageSha256: string) => PackageToRun;
  /** Memory of the host above which nothing is loaded beside the lanes' models. */
  readonly hostBytesMax: number;
}

/** Above it a time makes no sense any more; microseconds, as the parameter `timeout` is. */
const TIMEOUT_US_MAX = AGENT_LIMITS.localInferTimeoutMs * 1000;
/** Beyond the time that a request may wait: for its run and the way back. */
const ANSWER_MS = AGENT_LIMITS.localRunTimeoutMs;

/**
 * The models of this device as a service of the Open Inference Protocol: what the lanes run, and installed packages that were loaded on
 * demand. The inference host runs them; control only asks.
 */
export class LocalInference implements InferenceService {
  readonly #options: LocalInferenceOptions;
  readonly #budget = new ByteBudget(AGENT_LIMITS.localBytesInHandMax);
  /** Packages that were loaded on demand: they stay on disk meanwhile. */
  readonly #onDemand = new Set<string>();
  readonly #loading = new Set<string>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: LocalInferenceOptions) {
    this.#options = options;
  }

  /** True for what must not be removed from disk. */
  needs(packageSha256: string): boolean {
    return this.#onDemand.has(packageSha256) || this.#loading.has(packageSha256);
  }

  /** What was loaded on demand ended with the host. */
  hostEnded(): void {
    this.#onDemand.clear();
  }

  serverMetadata(): OipServerMetadata {
    return {
      name: "fieldloop-agent",
      version: AGENT_VERSION,
      extensions: ["binary_tensor_data", "model_repository"],
    };
  }

  async ready(): Promise<boolean> {
    return this.#options.host.ready;
  }

  async models(): Promise<OipModelIndexEntry[]> {
    const { host, catalog } = this.#options;
    const loaded = await this.#loaded();
    const entries: OipModelIndexEntry[] = loaded.map(({ model, version }) => ({
      name: model,
      version: String(version),
      state: "READY",
      reason: "",
    }));
    const ready = new Set(loaded.map(({ packageSha256 }) => packageSha256));
    for (const { packageSha256, model, version } of await catalog.list()) {
      if (ready.has(packageSha256)) continue;
      const isLoading = this.#loading.has(packageSha256);
      const reason = host.ready ? "installed, not loaded" : "the inference host is not running";
      entries.push({
        name: model,
        version: String(version),
        state: isLoading ? "LOADING" : "UNAVAILABLE",
        reason: isLoading ? "being loaded" : reason,
      });
    }
    return entries;
  }

  async modelReady(model: string, version: string | undefined): Promise<boolean> {
    const choice = choiceOf(model, version);
    if ((await this.#loaded()).some((entry) => fits(entry, choice))) return true;
    await this.#installed(choice);
    return false;
  }

  async modelMetadata(model: string, version: string | undefined): Promise<OipModelMetadata> {
    const choice = choiceOf(model, version);
    const { inputs, outputs, executionProvider } = await this.#ask(choice, () =>
      this.#options.host.request({ kind: "model_metadata", ...choice }),
    );
    const loaded = (await this.#loaded()).filter((entry) => entry.model === model);
    return {
      name: model,
      versions: [...new Set(loaded.map((entry) => String(entry.version)))],
      platform: `onnxruntime_${executionProvider.split(":", 1)[0]}`,
      inputs: inputs.map(toMetadata),
      outputs: outputs.map(toMetadata),
    };
  }

  /** `NAME` for the newest installed version, `NAME@VERSION` for that one. */
  load(name: string): Promise<void> {
    return this.#change(async () => {
      const choice = namedChoice(name);
      const loaded = await this.#loaded();
      if (loaded.some((entry) => fits(entry, choice))) return;
      const { host, toRun } = this.#options;
      const entry = await this.#installed(choice);
      if (!host.ready) throw notRunning();
      this.#checkMemory(entry);
      const { packageSha256 } = entry;
      this.#loading.add(packageSha256);
      try {
        const request = { kind: "load_model", package: toRun(packageSha256) } as const;
        await host.request(request, AGENT_LIMITS.activateTimeoutMs);
        this.#onDemand.add(packageSha256);
      } finally {
        this.#loading.delete(packageSha256);
      }
    });
  }

  unload(name: string): Promise<void> {
    return this.#change(async () => {
      const choice = namedChoice(name);
      const loaded = (await this.#loaded()).filter((entry) => fits(entry, choice));
      if (loaded.length === 0) {
        await this.#installed(choice);
        return;
      }
      await this.#options.host.request({ kind: "unload_model", ...choice }, AGENT_LIMITS.activateTimeoutMs);
      for (const { packageSha256 } of loaded) this.#onDemand.delete(packageSha256);
    });
  }

  async infer(request: OipInferRequest, signal?: AbortSignal): Promise<OipInferResponse> {
    const choice = choiceOf(request.model, request.version);
    const input = inputOf(request);
    const timeoutMs = timeoutOf(request.parameters["timeout"]);
    const bytes = "feeds" in input ? bytesOf(input.feeds) : input.image.length;
    if (bytes > AGENT_LIMITS.localTensorBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Infer: inputs of ${bytes} bytes, at most ${AGENT_LIMITS.localTensorBytesMax}`,
      );
    }
    const asked = { kind: "infer", ...choice, input, outputs: request.outputs, timeoutMs } as const;
    return this.#budget.during(bytes, async () => {
      const { model, version, outputs } = await this.#ask(choice, () =>
        this.#options.host.request(asked, timeoutMs + ANSWER_MS, signal),
      );
      return { model, version: String(version), outputs: new Map(Object.entries(outputs)) };
    });
  }

  async #loaded(): Promise<readonly LoadedModelEntry[]> {
    const { host } = this.#options;
    return host.ready ? host.request({ kind: "loaded_models" }) : [];
  }

  /** Of those that fit, the newest. @throws FieldloopError `not_found` */
  async #installed(choice: ModelChoice): Promise<CatalogEntry> {
    const entry = (await this.#options.catalog.list()).find((candidate) => fits(candidate, choice));
    if (entry) return entry;
    const version = choice.version === undefined ? "" : ` version ${choice.version}`;
    throw new FieldloopError(
      "not_found",
      `Answer request: no model "${choice.model.slice(0, 300)}"${version}`,
    );
  }

  /** What is here and not loaded is not ready, and not unknown. */
  async #ask<Answer>(choice: ModelChoice, ask: () => Promise<Answer>): Promise<Answer> {
    if (!this.#options.host.ready) throw notRunning();
    try {
      return await ask();
    } catch (error) {
      const coded = toFieldloopError(error);
      if (coded.code !== "not_found") throw coded;
      const { model, version } = await this.#installed(choice);
      const message = `Answer request: model "${model}" version ${version} is installed, not loaded`;
      throw new FieldloopError("unavailable", message, { cause: coded });
    }
  }

  #checkMemory({ model, version, modelBytes }: CatalogEntry): void {
    const { host, hostBytesMax } = this.#options;
    const held = host.heartbeat?.residentBytes ?? 0;
    const wanted = modelBytes * AGENT_LIMITS.localModelMemoryFactor;
    if (held + wanted <= hostBytesMax) return;
    const [has, needs, ceiling] = [held, wanted, hostBytesMax].map((bytes) => Math.ceil(bytes / 2 ** 20));
    throw new FieldloopError(
      "limit_exceeded",
      `Load model "${model}" version ${version}: about ${needs} MB more than the ${has} MB that the inference host holds, its ceiling is ${ceiling} MB`,
    );
  }

  #change<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

function inputOf({ inputs, encoded }: OipInferRequest): InferInput {
  const [image, ...further] = encoded?.values() ?? [];
  if (!image) return { feeds: Object.fromEntries(inputs) };
  if (further.length === 0 && inputs.size === 0) return { image: image.bytes };
  throw new FieldloopError("tensor_invalid", "Infer: an image is the one and only input of a request");
}

function bytesOf(
  feeds: Readonly<Record<string, { readonly data: Parameters<typeof tensorBytes>[0] }>>,
): number {
  return Object.values(feeds).reduce((sum, { data }) => sum + tensorBytes(data), 0);
}

function timeoutOf(parameter: string | number | boolean | undefined): number {
  if (parameter === undefined) return AGENT_LIMITS.localInferTimeoutMs;
  const us = typeof parameter === "number" ? parameter : Number.NaN;
  if (!(us > 0)) {
    throw new FieldloopError(
      "invalid_argument",
      `Infer: timeout "${String(parameter).slice(0, 32)}", wanted microseconds above 0`,
    );
  }
  return Math.ceil(Math.min(us, TIMEOUT_US_MAX) / 1000);
}

/** @throws FieldloopError `not_found` for a version that is no number: there is none such */
function choiceOf(model: string, version: string | undefined): ModelChoice {
  if (version === undefined) return { model, version: undefined };
  if (/^[1-9]\d{0,9}$/.test(version)) return { model, version: Number(version) };
  throw new FieldloopError(
    "not_found",
    `Answer request: no model "${model.slice(0, 300)}" version "${version.slice(0, 32)}"`,
  );
}

function namedChoice(name: string): ModelChoice {
  const at = name.lastIndexOf("@");
  return at < 0 ? choiceOf(name, undefined) : choiceOf(name.slice(0, at), name.slice(at + 1));
}

function fits(entry: { readonly model: string; readonly version: number }, choice: ModelChoice): boolean {
  return entry.model === choice.model && (choice.version === undefined || entry.version === choice.version);
}

function notRunning(): FieldloopError {
  return new FieldloopError("unavailable", "Answer request: the inference host is not running");
}

function toMetadata({ name, type, dims }: TensorInfo): OipTensorMetadata {
  return {
    name,
    datatype: datatypeOf(type),
    shape: dims.map((dim) => (typeof dim === "number" && dim >= 0 ? dim : -1)),
  };
}
