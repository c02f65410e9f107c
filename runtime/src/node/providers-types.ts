/** One (execution provider, variant) pair of a package that was tried on this machine. */
export interface ProviderChoice {
  /** As {@link backendFor} takes it: `cpu`, `webgpu`, `cuda`, `wasm`, `oip+http://…`. */
  readonly executionProvider: string;
  /** Name of the package's variant. */
  readonly variant: string;
  /** It opened the model and ran the golden cases; false where {@link reason} says why not. */
  readonly works: boolean;
  /** Every golden case is within its tolerance. A package without golden cases is correct where it ran and gave finite numbers. */
  readonly correct: boolean;
  /** Median time of one run in milliseconds; null where it did not get that far. */
  readonly medianMs: number | null;
  /** Share of the graph's nodes per execution provider that really ran them, 0..1; null where the backend can't tell. */
  readonly shares: Readonly<Record<string, number>> | null;
  /** Why it does not work or is not correct: code and message. */
  readonly reason?: { readonly code: string; readonly message: string };
}

export interface ProviderChoices {
  readonly packageSha256: string;
  /** What the result holds for: package, runtime and driver versions, machine; another key means probing again. */
  readonly key: string;
  /** All pairs tried: correct ones first, the fastest in front; that part is the order to fall back in. */
  readonly choices: readonly ProviderChoice[];
  /** The fastest correct pair; undefined where none is. */
  readonly chosen: ProviderChoice | undefined;
  /** True where this was remembered and nothing was probed now. */
  readonly remembered: boolean;
}

/** What decides how a probe is done and where it may reach. */
export interface ProbeOptions {
  /** Where results are remembered; made when it is not there. */
  readonly directory: string;
  /** Threads inside one operator while it is timed: the budget that the model will have. */
  readonly threadCount: number;
  /** Full provider names of Open Inference Protocol servers that serve this model, see `docs/hardware.md`. */
  readonly endpoints?: readonly string[];
  /** Only these execution providers; by default all that this machine could have. */
  readonly executionProviders?: readonly string[];
  /** A vendor's own ONNX Runtime library, used instead of the bundled one; wants `environment` as well. */
  readonly runtimeLibrary?: string;
  /**
   * Environment of the probing processes, by which drivers are found, from the entry file. By default they inherit this
   * process's (and with it a library that this process was started with), and results do not depend on it.
   */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** A probe of one pair that takes longer is killed. Default 60 000. */
  readonly timeoutMs?: number;
  /** No pair is begun after this time: those that are left are not tried, and not remembered. No limit by default. */
  readonly totalMs?: number;
  /** A probe of one pair with more resident memory is killed (Linux only). Default 2 GiB. */
  readonly memoryBytesMax?: number;
  /** Timed runs of one pair, at most. Default 20. */
  readonly runsMax?: number;
  /** True probes even where a result is remembered. */
  readonly fresh?: boolean;
  /** Called before each pair is probed. */
  readonly progress?: (executionProvider: string, variant: string) => void;
  readonly signal?: AbortSignal;
}
