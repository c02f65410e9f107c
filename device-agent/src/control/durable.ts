import { lstat, readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DEPLOYMENT_STATES, FieldloopError, type DeploymentState } from "@fieldloop/protocol";
import type { z } from "zod";
import { type AppendFile, type DeviceFiles, nodeFiles } from "./device-files.js";
import { codeOf, reasonOf } from "./files.js";

/** Where the update changes the disk, beside the states of a deployment. */
const STEP_POINTS = [
  /** The desired state, accepted. */
  "desired",
  /** The lane's file: the least revision, a start that found a deployment in hand, a state whose work is done and waits. */
  "revision",
  "start",
  "ready",
  /** The lane's file: what runs and what ran before, after somebody had the device return. */
  "returned",
  /** A file that does not parse, kept aside. */
  "set_aside",
  /** What is on its way: folders, bytes of a file, a file begun anew or whole. */
  "staging_folder",
  "part_bytes",
  "part_sync",
  "part_begin",
  "part_drop",
  "file_keep",
  "copy_bytes",
  "copy_drop",
  /** A package as a whole. */
  "package_seal",
  "package_clear",
  "package_install",
  "package_retire",
  "staging_drop",
  /** Execution providers of a package, as its self test found them. */
  "providers",
  /** Bytes used of the day's budget. */
  "budget",
] as const;

export type PersistPoint = `state:${DeploymentState}` | (typeof STEP_POINTS)[number];
/** Every place where the update changes the disk. A test kills the agent before and after each. */
export const PERSIST_POINTS: readonly PersistPoint[] = [
  ...DEPLOYMENT_STATES.map((state) => `state:${state}` as const),
  ...STEP_POINTS,
];

/** Told before the first and after the last operation of a point. What it throws ends the operation. */
export type PersistObserver = (point: PersistPoint, phase: "before" | "after") => void | Promise<void>;

/**
 * The one way by which the update changes the disk: each change names its point. What is said to be done is on the disk: contents before
 * the names that make them visible, names before what builds on them.
 * @throws FieldloopError `storage_full` where there is no space, `storage_failed` for all else that the disk says
 */
export class Durable {
  readonly #files: DeviceFiles;
  readonly #observer: PersistObserver | undefined;

  constructor(files: DeviceFiles = nodeFiles, observer?: PersistObserver) {
    this.#files = files;
    this.#observer = observer;
  }

  /** A whole file or the old one: temporary file, sync, rename, sync of the folder. */
  async writeFile(point: PersistPoint, path: string, bytes: Uint8Array | string): Promise<void> {
    await this.#do(point, `Write "${path}"`, async () => {
      const temporary = `${path}.tmp`;
      const file = await this.#files.open(temporary, "w");
      try {
        await file.write(typeof bytes === "string" ? Buffer.from(bytes) : bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#files.rename(temporary, path);
      await this.#files.syncDirectory(dirname(path));
    });
  }

  async writeJson(point: PersistPoint, path: string, value: unknown): Promise<void> {
    await this.writeFile(point, path, `${JSON.stringify(value, null, 2)}\n`);
  }

  /** A file that does not parse is kept aside as `….corrupt` and told: nothing is silently overwritten. */
  async readJson<Schema extends z.ZodType>(
    path: string,
    schema: Schema,
    onCorrupt: (message: string) => void,
  ): Promise<z.output<Schema> | undefined> {
    let text: string;
    try {
      text = await readFile(path, "utf8");
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw storageError(`Read "${path}"`, error);
    }
    try {
      return schema.parse(JSON.parse(text));
    } catch {
      await this.rename("set_aside", path, `${path}.corrupt`);
      onCorrupt(`"${path}" does not parse and was kept aside as "${path}.corrupt"`);
      return undefined;
    }
  }

  /** Goes on at the end of a file, or begins it; nothing of it is sure before {@link PartFile.sync}. */
  async append(path: string, how: "w" | "a"): Promise<PartFile> {
    const file = await this.#do("part_begin", `Open "${path}"`, () => this.#files.open(path, how));
    return {
      write: (bytes) => this.#do("part_bytes", `Write "${path}"`, () => file.write(bytes)),
      sync: () => this.#do("part_sync", `Write "${path}"`, () => file.sync()),
      close: () => file.close(),
    };
  }

  /** The name is durable; the content has to be so before. */
  async rename(point: PersistPoint, from: string, to: string): Promise<void> {
    await this.#do(point, `Rename "${from}"`, async () => {
      await this.#files.rename(from, to);
      await this.#files.syncDirectory(dirname(to));
      if (dirname(from) !== dirname(to)) await this.#files.syncDirectory(dirname(from));
    });
  }

  async copy(from: string, to: string): Promise<void> {
    await this.#do("copy_bytes", `Copy "${from}"`, async () => {
      await this.#files.copy(from, to);
      await this.#files.syncFile(to);
    });
  }

  /** With the folders above it that are missing. */
  async makeDirectory(point: PersistPoint, path: string): Promise<void> {
    if (await isThere(path)) return;
    await this.makeDirectory(point, dirname(path));
    await this.#do(point, `Make folder "${path}"`, async () => {
      try {
        await this.#files.makeDirectory(path);
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
      }
      await this.#files.syncDirectory(dirname(path));
    });
  }

  /** A file, or a folder with all that is in it, one after the other: what must not be seen half gone is renamed before. */
  async remove(point: PersistPoint, path: string): Promise<void> {
    if (!(await isThere(path))) return;
    await this.#do(point, `Remove "${path}"`, () => this.#remove(path));
  }

  /** Contents and names of everything below a folder. */
  async seal(directory: string): Promise<void> {
    await this.#do("package_seal", `Write "${directory}"`, () => this.#seal(directory));
  }

  async freeBytes(path: string): Promise<number> {
    try {
      return await this.#files.freeBytes(path);
    } catch (error) {
      throw storageError(`Ask for free space of "${path}"`, error);
    }
  }

  async #remove(path: string): Promise<void> {
    const info = await lstat(path).catch(ifMissing);
    if (!info) return;
    if (!info.isDirectory()) return this.#gone(this.#files.unlink(path));
    for (const name of await readdir(path)) await this.#remove(join(path, name));
    await this.#gone(this.#files.removeDirectory(path));
  }

  async #gone(removal: Promise<void>): Promise<void> {
    try {
      await removal;
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }

  async #seal(directory: string): Promise<void> {
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      await (entry.isDirectory() ? this.#seal(path) : this.#files.syncFile(path));
    }
    await this.#files.syncDirectory(directory);
  }

  async #do<Result>(point: PersistPoint, what: string, work: () => Promise<Result>): Promise<Result> {
    await this.#observer?.(point, "before");
    let result: Result;
    try {
      result = await work();
    } catch (cause) {
      throw storageError(what, cause);
    }
    await this.#observer?.(point, "after");
    return result;
  }
}

/** A file on its way, from its end on. @throws FieldloopError `storage_full`, `storage_failed` */
export type PartFile = AppendFile;

const NO_SPACE: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

function storageError(what: string, cause: unknown): FieldloopError {
  if (cause instanceof FieldloopError) return cause;
  const code = NO_SPACE.has(codeOf(cause) ?? "") ? "storage_full" : "storage_failed";
  return new FieldloopError(code, `${what}: ${reasonOf(cause)}`, { cause });
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(ifMissing)) !== undefined;
}

function ifMissing(error: unknown): undefined {
  if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
  throw error;
}
