import { createHash } from "node:crypto";
import { join } from "node:path";
import { FieldloopError, LIMITS, sha256Schema } from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS } from "../../limits.js";
import { reasonOf } from "../files.js";
import { replaceFile, type TrustDisk } from "./disk.js";

/** Name → bytes, byte for byte as they were signed: `root.json`, `timestamp.json`, … */
export type TrustFiles = ReadonlyMap<string, Buffer>;

export interface StoredSet {
  readonly files: TrustFiles;
  /** What was found harmed and is not used: `generation-…/snapshot.json`. */
  readonly harmed: readonly string[];
}

export const ROOT_FILE = "root.json";
const FACTORY_FILE = "factory-root.json";
/** No metadata file is named so: those end in `.json`. */
const INDEX_FILE = "index";
const INCOMING = "incoming";
const GENERATION = /^generation-(\d{10})$/;

const indexSchema = z.object({
  schema: z.literal(1),
  files: z.record(
    z.string().max(AGENT_LIMITS.trustFileNameMax),
    z.object({ bytes: z.int().min(0).max(LIMITS.targetsBytesMax), sha256: sha256Schema }),
  ),
});

/**
 * Trust metadata on this device's disk. `factory-root.json` is written once and never again; every later set is a folder of its own,
 * `generation-{n}/`, with an `index` of the hashes of its files. A set is written and synced in `incoming/` and becomes the newest
 * generation by one rename: a power cut at any byte leaves the set before or the new one, whole. The generation before stays, so that a
 * file that the medium harmed later is taken from there; a root harmed in both is the factory root, from which the device walks on.
 */
export class MetadataStore {
  readonly #directory: string;
  readonly #disk: TrustDisk;

  constructor(directory: string, disk: TrustDisk) {
    this.#directory = directory;
    this.#disk = disk;
  }

  /**
   * Makes the folder and keeps `factoryRoot` in it where there is none yet, or where what is there was harmed.
   * @throws FieldloopError `already_exists` where another root is kept; `storage_failed`
   */
  async initialize(factoryRoot: Uint8Array): Promise<void> {
    await this.#guarded("Initialize trust store", async () => {
      await this.#disk.makeDirectory(this.#directory);
      const kept = await this.factoryRoot();
      if (kept?.equals(factoryRoot)) return;
      if (kept && isJson(kept)) {
        throw new FieldloopError(
          "already_exists",
          `Initialize trust store "${this.#directory}": it starts from another root`,
        );
      }
      await replaceFile(this.#disk, this.#directory, FACTORY_FILE, factoryRoot);
    });
  }

  /** The root that this device was given; undefined before {@link initialize}. */
  factoryRoot(): Promise<Buffer | undefined> {
    return this.#disk.read(join(this.#directory, FACTORY_FILE));
  }

  /**
   * The newest set. Each file is taken from the newest generation in which it is whole, the root from the factory if from none.
   * @throws FieldloopError `not_found` before {@link initialize}; `storage_failed`
   */
  async load(): Promise<StoredSet> {
    return this.#guarded("Read trust metadata", async () => {
      const files = new Map<string, Buffer>();
      const harmed: string[] = [];
      for (const generation of await this.#generations()) {
        const whole = await this.#read(generation, files, harmed);
        if (whole) break;
      }
      if (!files.has(ROOT_FILE)) {
        const factory = await this.factoryRoot();
        if (!factory) throw new FieldloopError("not_found", "Read trust metadata: there is no root yet");
        files.set(ROOT_FILE, factory);
      }
      return { files, harmed };
    });
  }

  /** Adds the files of a generation that newer ones lack; true where nothing of it was harmed. */
  async #read(generation: number, files: Map<string, Buffer>, harmed: string[]): Promise<boolean> {
    const folder = nameOf(generation);
    const index = parseIndex(await this.#disk.read(join(this.#directory, folder, INDEX_FILE)));
    if (!index) {
      harmed.push(`${folder}/${INDEX_FILE}`);
      return false;
    }
    let whole = true;
    for (const [name, wanted] of Object.entries(index.files)) {
      const bytes = await this.#disk.read(join(this.#directory, folder, name));
      if (bytes && bytes.length === wanted.bytes && sha256Of(bytes) === wanted.sha256) {
        if (!files.has(name)) files.set(name, bytes);
      } else {
        harmed.push(`${folder}/${name}`);
        whole = false;
      }
    }
    return whole;
  }

  /**
   * Makes `files` the newest set.
   * @throws FieldloopError `storage_failed` (`storage_full` where that is why), with the set before still in force
   */
  async commit(files: TrustFiles): Promise<void> {
    await this.#guarded("Write trust metadata", async () => {
      const generations = await this.#generations();
      const incoming = join(this.#directory, INCOMING);
      await this.#disk.remove(incoming);
      await this.#disk.makeDirectory(incoming);
      const index: z.input<typeof indexSchema> = { schema: 1, files: {} };
      for (const [name, bytes] of files) {
        index.files[name] = { bytes: bytes.length, sha256: sha256Of(bytes) };
        await this.#put(join(incoming, name), bytes);
      }
      await this.#put(join(incoming, INDEX_FILE), Buffer.from(JSON.stringify(index)));
      await this.#disk.syncDirectory(incoming);
      const next = (generations[0] ?? 0) + 1;
      await this.#disk.rename(incoming, join(this.#directory, nameOf(next)));
      await this.#disk.syncDirectory(this.#directory);
      for (const old of generations.slice(AGENT_LIMITS.trustGenerationsKept - 1)) {
        await this.#disk.remove(join(this.#directory, nameOf(old)));
      }
    });
  }

  async #put(path: string, bytes: Uint8Array): Promise<void> {
    await this.#disk.write(path, bytes);
    await this.#disk.sync(path);
  }

  /** Newest first. */
  async #generations(): Promise<number[]> {
    const names = await this.#disk.list(this.#directory);
    return names
      .flatMap((name) => {
        const match = GENERATION.exec(name);
        return match ? [Number(match[1])] : [];
      })
      .sort((a, b) => b - a);
  }

  async #guarded<Result>(action: string, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof FieldloopError) throw cause;
      const full = cause instanceof Error && "code" in cause && cause.code === "ENOSPC";
      throw new FieldloopError(full ? "storage_full" : "storage_failed", `${action}: ${reasonOf(cause)}`, {
        cause,
      });
    }
  }
}

function nameOf(generation: number): string {
  return `generation-${String(generation).padStart(10, "0")}`;
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function parseIndex(bytes: Buffer | undefined): z.output<typeof indexSchema> | undefined {
  if (!bytes) return undefined;
  try {
    return indexSchema.parse(JSON.parse(bytes.toString("utf8")));
  } catch {
    // Harmed: the caller notes it and looks in the generation before.
    return undefined;
  }
}

function isJson(bytes: Buffer): boolean {
  try {
    return typeof JSON.parse(bytes.toString("utf8")) === "object";
  } catch {
    // A root that does not parse was harmed by the medium: it is written anew.
    return false;
  }
}
