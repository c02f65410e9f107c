import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  modelFiles,
  toFieldloopError,
  type LiveEvent,
  type PackageFile,
} from "@fieldloop/protocol";
import type { BlobInfo, BlobStore } from "../blob/blob.js";
import type { Clock, Logger } from "../context.js";
import { DeltaChild } from "../delta/child.js";
import { SERVER_LIMITS } from "../limits.js";
import type { Database } from "../store/database.js";
import { DeltaStore, type StoredDelta } from "../store/deltas.js";
import { RegistryStore, type StoredVersion } from "../store/registry.js";

export interface DeltaServiceOptions {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly live: { listen(listener: (event: LiveEvent) => void): () => void };
  /** A folder of its own, emptied at the start. */
  readonly workDir: string;
  readonly limits?: Partial<DeltaServiceLimits>;
}

export interface DeltaServiceLimits {
  readonly timeoutMs: number;
  readonly cacheBytesMax: number;
  readonly pairsMax: number;
}

/** A delta that can be sent, one that is being made, or none: then the whole file is the way. */
export type DeltaOutcome =
  | { readonly kind: "ready"; readonly blob: BlobInfo }
  | { readonly kind: "making" }
  | { readonly kind: "none" };

/** Model files by their hash, with the models that have them. */
type FileTable = ReadonlyMap<string, { readonly file: PackageFile; readonly models: ReadonlySet<string> }>;

interface Pair {
  readonly base: PackageFile;
  readonly target: PackageFile;
}

/**
 * Deltas between model files of published versions of one model: each made once, by a process of its own, one at a time, and kept until
 * others were asked for more lately. That a pair saves too little is remembered as well. A version that is published gets its deltas from
 * the one before at once; other pairs are made when a device asks.
 */
export class DeltaService {
  readonly #options: DeltaServiceOptions;
  readonly #limits: DeltaServiceLimits;
  readonly #store: DeltaStore;
  readonly #registry: RegistryStore;
  /** In the order in which they are made; the first is under way. */
  readonly #queue = new Map<string, Pair>();
  #child: DeltaChild | undefined;
  #worker: Promise<void> | undefined;
  #stopped = true;
  #stopListening = (): void => undefined;
  #eager: Promise<void> = Promise.resolve();
  /** Whoever asks while it is read waits for the same reading. */
  #files: Promise<FileTable> = Promise.resolve(new Map());
  #filesRead = Number.NEGATIVE_INFINITY;

  constructor(options: DeltaServiceOptions) {
    this.#options = options;
    this.#limits = {
      timeoutMs: SERVER_LIMITS.deltaTimeoutMs,
      cacheBytesMax: SERVER_LIMITS.deltaCacheBytesMax,
      pairsMax: SERVER_LIMITS.deltaPairsMax,
      ...options.limits,
    };
    this.#store = new DeltaStore(options.database);
    this.#registry = new RegistryStore(options.database);
  }

  async start(): Promise<void> {
    const { workDir, live, logger } = this.#options;
    await rm(workDir, { recursive: true, force: true });
    await mkdir(workDir, { recursive: true, mode: 0o700 });
    this.#stopped = false;
    this.#stopListening = live.listen(({ type, id }) => {
      if (type !== "model") return;
      this.#eager = this.#eager
        .then(() => this.#published(id))
        .catch((error: unknown) =>
          logger.warn({ err: error, model: id }, "deltas of a new version not begun"),
        );
    });
  }

  /** What was under way is made when it is asked for again. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stopListening();
    await this.#eager;
    await this.#child?.stop();
    await this.#worker;
  }

  /** The delta that turns one file into another, by their hashes; begins to make it where that was never tried. */
  async get(baseSha256: string, targetSha256: string): Promise<DeltaOutcome> {
    const { clock, blobs } = this.#options;
    const now = clock.now();
    const known = await this.#store.get(baseSha256, targetSha256);
    if (known?.sha256) {
      const blob = await blobs.stat(known.sha256);
      if (now - known.used >= SERVER_LIMITS.deltaUsedEveryMs) {
        await this.#store.setUsed(baseSha256, targetSha256, now);
      }
      if (blob) return { kind: "ready", blob };
    } else if (known && !mayRetry(known, now)) return { kind: "none" };
    if (this.#queue.has(keyOf(baseSha256, targetSha256))) return { kind: "making" };
    const pair = await this.#pairOf(baseSha256, targetSha256);
    return pair && this.#enqueue(pair) ? { kind: "making" } : { kind: "none" };
  }

  /** For tests and a stop in order: everything that was asked for is made. */
  async settle(): Promise<void> {
    await this.#eager;
    await this.#worker;
  }

  /** Two model files, of which some model has both: no other pair is worth a process. */
  async #pairOf(baseSha256: string, targetSha256: string): Promise<Pair | undefined> {
    if (baseSha256 === targetSha256) return undefined;
    const files = await this.#modelFiles([baseSha256, targetSha256]);
    const [base, target] = [files.get(baseSha256), files.get(targetSha256)];
    if (!base || !target || ![...target.models].some((model) => base.models.has(model))) return undefined;
    return { base: base.file, target: target.file };
  }

  /** Every model file of every version; read again, not too often, for one that is not among them. */
  async #modelFiles(wanted: readonly string[]): Promise<FileTable> {
    const now = this.#options.clock.now();
    const files = await this.#files;
    const known = wanted.every((sha256) => files.has(sha256));
    if (known || now - this.#filesRead < SERVER_LIMITS.deltaFilesEveryMs) return this.#files;
    this.#filesRead = now;
    this.#files = this.#readModelFiles();
    // Read anew by the next who asks.
    this.#files.catch(() => {
      this.#files = Promise.resolve(new Map());
      this.#filesRead = Number.NEGATIVE_INFINITY;
    });
    return this.#files;
  }

  async #readModelFiles(): Promise<FileTable> {
    const files = new Map<string, { file: PackageFile; models: Set<string> }>();
    for (const { model, manifest } of await this.#registry.list()) {
      for (const file of modelFiles(manifest)) {
        const entry = files.get(file.sha256);
        if (entry) entry.models.add(model);
        else files.set(file.sha256, { file, models: new Set([model]) });
      }
    }
    return files;
  }

  /** A version was published (or something else about its model changed, which costs one look). */
  async #published(model: string): Promise<void> {
    if (this.#stopped) return;
    const [newest, before] = await this.#registry.list(model);
    if (!newest || !before) return;
    this.#filesRead = Number.NEGATIVE_INFINITY;
    for (const pair of changedFiles(before, newest)) {
      if (pair.target.bytes > SERVER_LIMITS.deltaEagerBytesMax) continue;
      if (!(await this.#store.get(pair.base.sha256, pair.target.sha256))) this.#enqueue(pair);
    }
  }

  #enqueue(pair: Pair): boolean {
    const key = keyOf(pair.base.sha256, pair.target.sha256);
    const largest = Math.max(pair.base.bytes, pair.target.bytes);
    if (this.#queue.has(key)) return true;
    if (this.#stopped || largest > SERVER_LIMITS.deltaFileBytesMax) return false;
    if (this.#queue.size >= SERVER_LIMITS.deltaQueueMax) return false;
    this.#queue.set(key, pair);
    this.#worker ??= this.#work().finally(() => {
      this.#worker = undefined;
    });
    return true;
  }

  async #work(): Promise<void> {
    for (const [key, pair] of this.#queue) {
      if (this.#stopped) return;
      try {
        await this.#make(pair);
      } catch (error) {
        this.#options.logger.warn({ err: error, ...namesOf(pair) }, "delta not stored");
      } finally {
        this.#queue.delete(key);
      }
    }
  }

  async #make(pair: Pair): Promise<void> {
    const { logger, clock, blobs } = this.#options;
    const begun = clock.now();
    let found: { sha256: string | null; bytes: number; reason: string | null };
    try {
      const delta = await this.#run(pair);
      if (!delta) found = { sha256: null, bytes: 0, reason: LARGE };
      else {
        const { sha256, bytes } = await blobs.put(delta);
        found = { sha256, bytes, reason: null };
      }
    } catch (error) {
      if (this.#stopped) return;
      const { code, message } = toFieldloopError(error);
      logger.warn({ code, ...namesOf(pair) }, message);
      found = { sha256: null, bytes: 0, reason: code };
    }
    const now = clock.now();
    await this.#store.put({
      base: pair.base.sha256,
      target: pair.target.sha256,
      ...found,
      made: now,
      used: now,
    });
    logger.info({ ...namesOf(pair), bytes: found.bytes, reason: found.reason, tookMs: now - begun }, "delta");
    await this.#trim();
  }

  async #run({ base, target }: Pair): Promise<Uint8Array | undefined> {
    const { workDir, blobs, logger } = this.#options;
    const [basePath, targetPath, deltaPath] = ["base", "target", "delta"].map((name) => join(workDir, name));
    await writeFile(basePath!, await blobs.stream(base.sha256));
    await writeFile(targetPath!, await blobs.stream(target.sha256));
    if (this.#stopped) throw new FieldloopError("unavailable", "Make delta: the server stops");
    const bytesMax = Math.floor(target.bytes * SERVER_LIMITS.deltaShareMax);
    const job = { basePath: basePath!, targetPath: targetPath!, deltaPath: deltaPath!, bytesMax };
    this.#child = new DeltaChild(job, { logger, timeoutMs: this.#limits.timeoutMs });
    try {
      const { kind } = await this.#child.answer;
      return kind === "made" ? await readFile(deltaPath!) : undefined;
    } finally {
      this.#child = undefined;
      for (const path of [basePath, targetPath, deltaPath]) await rm(path!, { force: true });
    }
  }

  /** Forgets what was not asked for the longest, until the rest fits. */
  async #trim(): Promise<void> {
    for (;;) {
      const { count, bytes } = await this.#store.totals();
      if (count <= this.#limits.pairsMax && bytes <= this.#limits.cacheBytesMax) return;
      const removed = await this.#store.removeOldest();
      if (!removed) return;
      if (removed.sha256) await this.#options.blobs.delete(removed.sha256);
    }
  }
}

/** The reason of pairs that are never tried again. */
const LARGE = "large";

function mayRetry({ reason, made }: StoredDelta, now: number): boolean {
  return reason !== LARGE && now - made >= SERVER_LIMITS.deltaRetryMs;
}

/** Files of the same name that differ. */
function changedFiles(before: StoredVersion, after: StoredVersion): Pair[] {
  const old = new Map(modelFiles(before.manifest).map((file) => [file.file, file]));
  return modelFiles(after.manifest).flatMap((target) => {
    const base = old.get(target.file);
    return base && base.sha256 !== target.sha256 ? [{ base, target }] : [];
  });
}

function keyOf(base: string, target: string): string {
  return `${base} ${target}`;
}

function namesOf({ base, target }: Pair): { base: string; target: string; file: string } {
  return { base: base.sha256, target: target.sha256, file: target.file };
}
