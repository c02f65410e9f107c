import { stat } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  modelFiles,
  toFieldloopError,
  type Manifest,
  type PackageFile,
} from "@fieldloop/protocol";
import type { Logger } from "pino";
import { AGENT_LIMITS } from "../limits.js";
import type { Rebuild } from "./delta-process.js";
import { sleep } from "./deployment-rules.js";
import { type Artifact, cancelled, downloadArtifact, type DownloadOptions } from "./download.js";
import type { HttpAnswer } from "./http-fetch.js";
import type { PackageStore } from "./package-store.js";

/** Times and sizes of deltas that a test makes smaller. */
export interface DeltaTerms {
  /** A smaller file travels whole. */
  readonly fileBytesMin: number;
  /** How long a server may take to make a delta before the whole file is fetched. */
  readonly waitMs: number;
}

export interface DeltaFetchOptions {
  readonly store: PackageStore;
  readonly rebuild: Rebuild;
  /** Packages whose files are tried first: what runs, and what ran before. */
  readonly preferred: readonly string[];
  readonly log: Logger;
  readonly terms?: Partial<DeltaTerms> | undefined;
}

/** How it ended: bytes that travelled for it, whether the file is whole at its place. */
export interface DeltaOutcome {
  readonly deltaBytes: number;
  readonly rebuilt: boolean;
}

interface Base {
  readonly path: string;
  readonly file: PackageFile;
}

const NOTHING: DeltaOutcome = { deltaBytes: 0, rebuilt: false };
/** More bases than these are not asked about: each costs a request. */
const BASES_MAX = 2;
const ETAG = /^"([0-9a-f]{64})"$/;
const COUNT = /^\d{1,10}$/;

/**
 * Makes a model file of a package whole from an installed one and a delta (`docs/delta.md`). Nothing it is given is trusted: the rebuilt
 * file has the hash that the manifest says, or the whole file travels. Whatever goes wrong is told in the log and ends there,
 * but for a disk that fails and a deployment that was given up.
 */
export class DeltaFetch {
  readonly #options: DeltaFetchOptions;
  readonly #fileBytesMin: number;
  readonly #waitMs: number;

  constructor(options: DeltaFetchOptions) {
    this.#options = options;
    this.#fileBytesMin = options.terms?.fileBytesMin ?? AGENT_LIMITS.deltaFileBytesMin;
    this.#waitMs = options.terms?.waitMs ?? AGENT_LIMITS.deltaWaitMs;
  }

  /**
   * `path` has the whole file afterwards, or nothing. Its delta and what is made of it lie beside it; a delta that was cut is gone on with.
   * @throws FieldloopError `cancelled`, `storage_full`, `storage_failed`
   */
  async bring(
    manifest: Manifest,
    file: PackageFile,
    path: string,
    options: DownloadOptions,
  ): Promise<DeltaOutcome> {
    if (file.bytes < this.#fileBytesMin || file.bytes > AGENT_LIMITS.deltaFileBytesMax) return NOTHING;
    for (const base of await this.#bases(manifest, file)) {
      const delta = await this.#tried(file, options, () => this.#offered(base.file, file, options));
      if (delta) return this.#bring(base, delta, file, path, options);
    }
    return NOTHING;
  }

  /** Model files of installed versions of the same model that this one may have come from, the likeliest first. */
  async #bases(wanted: Manifest, file: PackageFile): Promise<Base[]> {
    const { store, preferred } = this.#options;
    if (!modelFiles(wanted).some(({ sha256 }) => sha256 === file.sha256)) return [];
    const installed = await store.list();
    const others = installed.filter((name) => !preferred.includes(name)).sort();
    const bases: Base[] = [];
    for (const packageSha256 of [...preferred, ...others]) {
      const manifest = installed.includes(packageSha256) ? await store.manifestOf(packageSha256) : undefined;
      if (manifest?.model !== wanted.model) continue;
      const found = modelFiles(manifest).find((candidate) => candidate.file === file.file);
      if (!found || bases.some((base) => base.file.sha256 === found.sha256)) continue;
      bases.push({ path: join(store.installedPath(packageSha256), found.file), file: found });
    }
    return bases.slice(0, BASES_MAX);
  }

  /** The server's word about a delta; waits a while for one that it is making. Undefined where it has none. */
  async #offered(
    base: PackageFile,
    target: PackageFile,
    options: DownloadOptions,
  ): Promise<Artifact | undefined> {
    const { server, credential, signal, clock } = options;
    const url = `${server}/artifacts/delta/${base.sha256}/${target.sha256}`;
    const until = clock.monotonic() + this.#waitMs;
    for (;;) {
      const both = AbortSignal.any([signal, AbortSignal.timeout(AGENT_LIMITS.deltaAskTimeoutMs)]);
      const headers = { authorization: `Bearer ${credential}` };
      const answer = await options.fetch(url, { method: "HEAD", headers, signal: both });
      if (answer.status === 202 && clock.monotonic() < until) {
        const seconds = Number(answer.headers.get("retry-after") ?? "5") || 5;
        await sleep(Math.min(seconds * 1_000, this.#waitMs), signal);
        if (signal.aborted) throw cancelled(signal);
        continue;
      }
      return answer.status === 200 ? artifactOf(answer.headers, target) : undefined;
    }
  }

  async #bring(
    base: Base,
    delta: Artifact,
    file: PackageFile,
    path: string,
    options: DownloadOptions,
  ): Promise<DeltaOutcome> {
    const { durable } = options;
    const [deltaPath, rebuiltPath] = [`${path}.delta`, `${path}.rebuilt`];
    const before = await sizeOf(deltaPath);
    let travelled: number | undefined;
    const rebuilt = await this.#tried(file, options, async () => {
      travelled = await downloadArtifact(delta, deltaPath, options);
      await this.#rebuild(base, deltaPath, rebuiltPath, file, options);
      await durable.rename("file_keep", rebuiltPath, path);
      return true;
    });
    travelled ??= Math.max(0, (await sizeOf(deltaPath)) - before);
    await durable.remove("part_drop", deltaPath);
    await durable.remove("part_drop", rebuiltPath);
    const { log } = this.#options;
    if (rebuilt) log.info({ file: file.file, bytes: file.bytes, deltaBytes: travelled }, "rebuilt by delta");
    return { deltaBytes: travelled, rebuilt: rebuilt === true };
  }

  async #rebuild(
    base: Base,
    deltaPath: string,
    path: string,
    file: PackageFile,
    { durable, signal }: DownloadOptions,
  ): Promise<void> {
    const part = await durable.append(path, "w");
    let bytes = 0;
    try {
      const target = { sha256: file.sha256, bytes: file.bytes };
      await this.#options.rebuild({ basePath: base.path, deltaPath, target }, signal, async (chunk) => {
        bytes += chunk.length;
        if (bytes > file.bytes) throw malformed(file, `more than ${file.bytes} bytes came out`);
        await part.write(chunk);
      });
      if (bytes !== file.bytes) throw malformed(file, `${bytes} bytes came out, wanted ${file.bytes}`);
      await part.sync();
    } finally {
      await part.close();
    }
  }

  /** Undefined where it failed in a way that the whole file may not. */
  async #tried<Result>(
    file: PackageFile,
    { signal }: DownloadOptions,
    work: () => Promise<Result>,
  ): Promise<Result | undefined> {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      const { code, message } = toFieldloopError(error);
      if (code === "storage_full" || code === "storage_failed") throw error;
      this.#options.log.warn({ code, file: file.file, reason: message }, "no delta: the whole file travels");
      return undefined;
    }
  }
}

/** Undefined for a delta that saves nothing, or more than a device takes into memory. */
function artifactOf(headers: HttpAnswer["headers"], target: PackageFile): Artifact | undefined {
  const sha256 = ETAG.exec(headers.get("etag") ?? "")?.[1];
  const count = headers.get("fieldloop-delta-bytes") ?? "";
  const bytes = COUNT.test(count) ? Number(count) : Number.POSITIVE_INFINITY;
  if (sha256 === undefined || bytes >= target.bytes || bytes > AGENT_LIMITS.deltaBytesMax) return undefined;
  return { sha256, bytes };
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

function malformed(file: PackageFile, what: string): FieldloopError {
  return new FieldloopError("delta_malformed", `Rebuild "${file.file}": ${what}`);
}
