import { FieldloopError } from "@fieldloop/protocol";
import type { Clock, RandomSource } from "../../clock.js";
import { reasonOf } from "../files.js";
import type { HttpFetch } from "../http-fetch.js";
import { nodeDisk, type TrustDisk } from "./disk.js";
import type { Engine } from "./engine.js";
import { MetadataStore, ROOT_FILE, type TrustFiles } from "./metadata-store.js";
import type { TransferLimits, TransferOptions } from "./transfer.js";
import { TrustClock } from "./trust-clock.js";

export interface RepositoryOptions {
  /** Where its metadata are kept. */
  readonly directory: string;
  /** Where metadata are fetched, `https://…/tuf/metadata/`. */
  readonly metadataUrl: string;
  /** Delegated roles that one search for a target may visit. */
  readonly delegationsMax: number;
  readonly fetch: HttpFetch;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly headers?: Readonly<Record<string, string>>;
  readonly budget?: TransferOptions["budget"];
  readonly limits?: Partial<TransferLimits>;
  readonly disk?: TrustDisk;
  /** Files of the store that the medium harmed; they are fetched anew. */
  readonly onHarmed?: (message: string) => void;
}

/** What one cycle works with, after its refresh. */
export interface Cycle {
  readonly engine: Engine;
  readonly signal: AbortSignal;
  /** Kept beside the metadata from this cycle on, in the same commit. */
  keep(name: string, bytes: Buffer | undefined): void;
  kept(name: string): Buffer | undefined;
}

/**
 * A TUF repository as this device sees it: its store, its clock, and one update cycle after the other. What a cycle verified is committed
 * even if a later step of it fails (TUF section 5.3.8): a root that was walked to is not walked to again.
 */
export class Repository {
  readonly #options: RepositoryOptions;
  readonly #store: MetadataStore;
  readonly #clock: TrustClock;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: RepositoryOptions) {
    this.#options = options;
    const disk = options.disk ?? nodeDisk;
    this.#store = new MetadataStore(options.directory, disk);
    this.#clock = new TrustClock(options.directory, disk, options.clock);
  }

  get clock(): TrustClock {
    return this.#clock;
  }

  /** @throws FieldloopError as {@link MetadataStore.initialize} */
  async initialize(factoryRoot: Uint8Array): Promise<void> {
    await this.#store.initialize(factoryRoot);
  }

  /** The trusted metadata as they are on disk. @throws FieldloopError as {@link MetadataStore.load} */
  async open(): Promise<TrustFiles> {
    await this.#clock.load();
    const { files, harmed } = await this.#store.load();
    if (harmed.length > 0) {
      this.#options.onHarmed?.(`Read trust metadata: ${harmed.join(", ")} harmed; fetched anew`);
    }
    return files;
  }

  /**
   * Refreshes, and works with what is trusted then; one cycle after the other.
   * @throws FieldloopError `trust_*`, `download_too_slow`, `storage_failed`, `cancelled`, or what `work` throws
   */
  cycle<Result>(signal: AbortSignal, work: (cycle: Cycle) => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(() => this.#cycle(signal, work));
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #cycle<Result>(signal: AbortSignal, work: (cycle: Cycle) => Promise<Result>): Promise<Result> {
    const { files: before, harmed } = await this.#store.load();
    const files = new Map(before);
    const reference = this.#clock.reference();
    const engine = await this.#engine(files, reference, signal);
    try {
      await this.#refresh(engine, reference);
      return await work({
        engine,
        signal,
        kept: (name) => files.get(name),
        keep: (name, bytes) => void (bytes ? files.set(name, bytes) : files.delete(name)),
      });
    } finally {
      // A harmed generation is replaced by a whole one, be it of the same content.
      if (harmed.length > 0 || differ(before, files)) await this.#store.commit(files);
    }
  }

  async #engine(files: Map<string, Buffer>, reference: number, signal: AbortSignal): Promise<Engine> {
    // Loaded when it is needed: a device that gets no updates keeps no update client in memory.
    const [{ Engine: Made }, { TrustFetcher }] = await Promise.all([
      import("./engine.js"),
      import("./trust-fetcher.js"),
    ]);
    const { metadataUrl, delegationsMax } = this.#options;
    const options = this.transferOptions(signal);
    const fetcher = (onFailure: (error: FieldloopError) => void) => new TrustFetcher(options, onFailure);
    const make = () => new Made({ files, reference, metadataUrl, delegationsMax, fetcher });
    try {
      return make();
    } catch (error) {
      // An agent of another version may have kept a root that this one does not read: the way from the factory root is always open.
      const factory = await this.#store.factoryRoot();
      if (!factory || files.get(ROOT_FILE)?.equals(factory)) throw error;
      files.set(ROOT_FILE, factory);
      return make();
    }
  }

  async #refresh(engine: Engine, reference: number): Promise<void> {
    try {
      await engine.refresh();
      this.#clock.admit(reference, engine.versions());
    } catch (error) {
      if (error instanceof FieldloopError && error.code === "trust_metadata_expired") {
        await this.#clock.expired(reference, engine.versions());
      }
      throw error;
    }
    await this.#clock.succeeded(reference);
  }

  transferOptions(signal: AbortSignal): TransferOptions {
    const { fetch, clock, random, headers, budget, limits } = this.#options;
    return {
      fetch,
      clock,
      random,
      signal,
      ...(headers ? { headers } : {}),
      ...(budget ? { budget } : {}),
      ...(limits ? { limits } : {}),
    };
  }
}

function differ(before: TrustFiles, after: TrustFiles): boolean {
  if (before.size !== after.size) return true;
  for (const [name, bytes] of after) if (before.get(name)?.equals(bytes) !== true) return true;
  return false;
}

/** @throws FieldloopError `trust_unreachable` where it is no address */
export function urlBelow(base: string, path: string): string {
  try {
    return new URL(path, base.endsWith("/") ? base : `${base}/`).toString();
  } catch (cause) {
    throw new FieldloopError("trust_unreachable", `Fetch below "${base}": ${reasonOf(cause)}`, { cause });
  }
}
