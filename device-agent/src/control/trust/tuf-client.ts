import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { systemClock, type Clock } from "../../clock.js";
import { AGENT_LIMITS } from "../../limits.js";
import { ensureDirectory, reasonOf } from "../files.js";
import { httpFetch, type HttpFetch } from "../http-fetch.js";
import { nodeDisk, replaceFile } from "./disk.js";
import { checkRoot } from "./engine.js";
import { Repository } from "./repository.js";
import { fetchTargetFile, holdsTarget, targetFile, targetUrl } from "./targets.js";
import type { TransferLimits } from "./transfer.js";

/**
 * The device's trust client as a plain TUF client over any repository: what the tuf-conformance suite drives, and what one looks into
 * a repository with. It is the same store, fetcher, clock and engine; unlike a device it follows delegations.
 */
export interface TufClientOptions {
  /** Holds what is trusted as `{role}.json`; the store itself is below `.store/`. */
  readonly metadataDir: string;
  readonly signal: AbortSignal;
  readonly clock?: Clock;
  readonly fetch?: HttpFetch;
  readonly limits?: Partial<TransferLimits>;
}

export interface TufRefreshOptions extends TufClientOptions {
  readonly metadataUrl: string;
}

export interface TufDownloadOptions extends TufRefreshOptions {
  /** In this order; the first failure ends it. */
  readonly targetNames: readonly string[];
  readonly targetBaseUrl: string;
  readonly targetDir: string;
}

/**
 * Starts from the root in `rootPath`, without a network.
 * @throws FieldloopError `not_found`, `trust_metadata_malformed`, `trust_signature_insufficient`, `already_exists` where it started from
 * another root, `storage_failed`
 */
export async function initTufClient(options: TufClientOptions, rootPath: string): Promise<void> {
  const root = await readFile(rootPath).catch((cause: unknown) => {
    throw new FieldloopError("not_found", `Read root "${rootPath}": ${reasonOf(cause)}`, { cause });
  });
  checkRoot(root);
  const repository = repositoryOf({ ...options, metadataUrl: "" });
  await repository.initialize(root);
  await mirror(options.metadataDir, repository);
}

/** @throws FieldloopError as {@link Repository.cycle} */
export async function refreshTufClient(options: TufRefreshOptions): Promise<void> {
  const repository = repositoryOf(options);
  await repository.open();
  try {
    await repository.cycle(options.signal, () => Promise.resolve());
  } finally {
    await mirror(options.metadataDir, repository);
  }
}

/**
 * Refreshes, then fetches targets that are not in `targetDir` yet.
 * @throws FieldloopError as {@link Repository.cycle}; `trust_target_unknown`, `trust_target_mismatch`
 */
export async function downloadTufClient(options: TufDownloadOptions): Promise<void> {
  const { targetNames, targetBaseUrl, targetDir } = options;
  const repository = repositoryOf(options);
  await repository.open();
  await ensureDirectory(targetDir);
  try {
    await repository.cycle(options.signal, async ({ engine, signal }) => {
      for (const name of targetNames) {
        const target = await engine.target(name);
        if (!target) {
          throw new FieldloopError("trust_target_unknown", `Download "${name}": no role names such a target`);
        }
        const path = targetFile(targetDir, name);
        if (await holdsTarget(target, path)) continue;
        const url = targetUrl(targetBaseUrl, target, engine.consistentSnapshot);
        await fetchTargetFile(target, url, path, repository.transferOptions(signal));
      }
    });
  } finally {
    await mirror(options.metadataDir, repository);
  }
}

function repositoryOf(options: TufRefreshOptions): Repository {
  return new Repository({
    directory: join(options.metadataDir, ".store"),
    metadataUrl: options.metadataUrl,
    delegationsMax: AGENT_LIMITS.trustDelegationsMax,
    fetch: options.fetch ?? httpFetch,
    clock: options.clock ?? systemClock,
    random: Math.random,
    ...(options.limits ? { limits: options.limits } : {}),
  });
}

/** Shows what is trusted as files without version numbers; the store is what counts. */
async function mirror(directory: string, repository: Repository): Promise<void> {
  const files = await repository.open();
  for (const name of await nodeDisk.list(directory)) {
    if (name.endsWith(".json") && !files.has(name)) await nodeDisk.remove(join(directory, name));
  }
  for (const [name, bytes] of files) {
    const shown = await nodeDisk.read(join(directory, name));
    if (!shown?.equals(bytes)) await replaceFile(nodeDisk, directory, name, bytes);
  }
}
