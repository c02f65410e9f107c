import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FieldloopError, hashedTargetPath, toFieldloopError } from "@fieldloop/protocol";
import { ensureDirectory, syncDirectory } from "../files.js";
import { urlBelow } from "./repository.js";
import { FileSink, MemorySink } from "./sinks.js";
import { transfer, type TransferOptions } from "./transfer.js";

/** What targets metadata say of a target (tuf-js's TargetFile is one). */
export interface TargetInfo {
  readonly path: string;
  readonly length: number;
  /** Algorithm → hexadecimal; SHA-256 or SHA-512 is among them. */
  readonly hashes: Readonly<Record<string, string>>;
}

const PARTS = ".parts";
const ALGORITHMS = ["sha256", "sha512"] as const;

/**
 * Where a target is served: the path with each part escaped, and with its hash in front of the name where the repository says so
 * (TUF section 6.2.2).
 * @throws FieldloopError `trust_target_unknown` for a path that would leave its folder
 */
export function targetUrl(base: string, target: TargetInfo, consistentSnapshot: boolean): string {
  const parts = target.path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new FieldloopError("trust_target_unknown", `Fetch target "${target.path}": not a path of a target`);
  }
  const path = consistentSnapshot
    ? hashedTargetPath(target.path, target.hashes["sha256"] ?? target.hashes["sha512"]!)
    : target.path;
  return urlBelow(base, path.split("/").map(encodeURIComponent).join("/"));
}

/**
 * Fetches a small target into memory.
 * @throws FieldloopError `trust_target_mismatch` where it is not what the metadata say, or as {@link transfer}
 */
export async function fetchTargetBytes(
  target: TargetInfo,
  url: string,
  options: TransferOptions,
): Promise<Buffer> {
  const sink = new MemorySink();
  await transferTarget(target, url, sink, options);
  const bytes = sink.bytes();
  const verifier = new TargetVerifier(target);
  verifier.update(bytes);
  verifier.finish();
  return bytes;
}

/**
 * Fetches a target into `path`, whole and verified or not at all; what an earlier try left in `.parts/` beside it is gone on with.
 * @throws FieldloopError `trust_target_mismatch`, or as {@link transfer}
 */
export async function fetchTargetFile(
  target: TargetInfo,
  url: string,
  path: string,
  options: TransferOptions,
): Promise<void> {
  const parts = join(dirname(path), PARTS);
  const part = join(parts, basename(path));
  await ensureDirectory(parts);
  for (let mayBeOther = true; ; mayBeOther = false) {
    const resumed = mayBeOther && (await sizeOf(part)) > 0;
    try {
      await fetchPart(target, url, part, options);
      break;
    } catch (error) {
      if (!(error instanceof FieldloopError) || error.code !== "trust_target_mismatch") throw error;
      await rm(part, { force: true });
      // What was begun earlier may be of another file: once more, in one go.
      if (!resumed) throw error;
    }
  }
  await rename(part, path);
  await syncDirectory(dirname(path));
}

async function fetchPart(
  target: TargetInfo,
  url: string,
  part: string,
  options: TransferOptions,
): Promise<void> {
  const sink = await FileSink.open(part);
  try {
    if (sink.length > target.length) await sink.clear();
    if (sink.length < target.length) await transferTarget(target, url, sink, { ...options, hashed: true });
    await sink.sync();
  } finally {
    await sink.close();
  }
  await verifyFile(target, part);
}

function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (info) => info.size,
    () => 0,
  );
}

/** True where `path` holds exactly this target. */
export async function holdsTarget(target: TargetInfo, path: string): Promise<boolean> {
  try {
    await verifyFile(target, path);
    return true;
  } catch {
    // Missing, another version, or harmed: it is fetched.
    return false;
  }
}

/**
 * The name of a target's file in a flat folder.
 * @throws FieldloopError `trust_target_unknown` where it can have none
 */
export function targetFile(directory: string, path: string): string {
  const name = encodeURIComponent(path);
  if (/^\.*$/.test(name) || name.length > 250) {
    throw new FieldloopError("trust_target_unknown", `Store target "${path}": no name for a file`);
  }
  return join(directory, name);
}

async function transferTarget(
  target: TargetInfo,
  url: string,
  sink: FileSink | MemorySink,
  options: TransferOptions,
): Promise<void> {
  try {
    await transfer(url, target.length, sink, options);
  } catch (error) {
    const coded = toFieldloopError(error);
    if (coded.code !== "trust_metadata_too_large") throw error;
    // Longer than signed is another content, however it begins.
    throw new FieldloopError("trust_target_mismatch", coded.message, { cause: error });
  }
}

async function verifyFile(target: TargetInfo, path: string): Promise<void> {
  const verifier = new TargetVerifier(target);
  for await (const chunk of createReadStream(path)) verifier.update(chunk as Buffer);
  verifier.finish();
}

/** Length and every hash of a target; an algorithm that is not known here cannot be right. */
class TargetVerifier {
  readonly #target: TargetInfo;
  readonly #hashes = ALGORITHMS.map((name) => ({ name, hash: createHash(name) }));
  #length = 0;

  constructor(target: TargetInfo) {
    this.#target = target;
  }

  update(bytes: Uint8Array): void {
    this.#length += bytes.length;
    for (const { hash } of this.#hashes) hash.update(bytes);
  }

  /** @throws FieldloopError `trust_target_mismatch` */
  finish(): void {
    const { length, hashes } = this.#target;
    if (this.#length !== length) this.#refuse(`${this.#length} bytes, wanted ${length}`);
    const made = new Map<string, string>(this.#hashes.map(({ name, hash }) => [name, hash.digest("hex")]));
    const entries = Object.entries(hashes);
    if (entries.length === 0) this.#refuse("no hash to check it by");
    for (const [algorithm, wanted] of entries) {
      const found = made.get(algorithm);
      if (found === undefined) this.#refuse(`hash algorithm "${algorithm}" is not known`);
      if (found !== wanted) this.#refuse(`${algorithm} "${found}", wanted "${wanted}"`);
    }
  }

  #refuse(what: string): never {
    throw new FieldloopError("trust_target_mismatch", `Verify target "${this.#target.path}": ${what}`);
  }
}
