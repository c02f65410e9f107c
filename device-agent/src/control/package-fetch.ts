import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  FieldloopError,
  manifestFiles,
  type Assignment,
  type Manifest,
  type PackageFile,
} from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";
import type { DeltaFetch } from "./delta-fetch.js";
import { type DownloadOptions, downloadArtifact, hashFile } from "./download.js";
import { isThere, MANIFEST_FILE, type PackageStore } from "./package-store.js";

export interface FetchedPackage {
  /** Deltas included. */
  readonly bytesDownloaded: number;
  /** Files with the same hash in any installed package, or twice in this one, copied instead. */
  readonly bytesReused: number;
  /** Of files that were rebuilt by deltas, and of the deltas that travelled, those that were of no use included. */
  readonly bytesRebuilt: number;
  readonly deltaBytes: number;
}

export interface PackageFetchOptions extends Omit<DownloadOptions, "durable" | "onCheck"> {
  /** Left out: every file travels whole. */
  readonly deltas?: DeltaFetch | undefined;
}

/** Brings one package into staging; what is there from an earlier, interrupted try is gone on with. */
export class PackageFetch {
  readonly #store: PackageStore;
  readonly #assignment: Assignment;
  readonly #options: PackageFetchOptions;
  readonly #staged: string;
  readonly #parts: string;
  #bytesDownloaded = 0;
  #bytesReused = 0;
  #bytesRebuilt = 0;
  #deltaBytes = 0;

  constructor(store: PackageStore, assignment: Assignment, options: PackageFetchOptions) {
    this.#store = store;
    this.#assignment = assignment;
    this.#options = options;
    this.#staged = store.stagedPath(assignment.packageSha256);
    this.#parts = store.partsPath(assignment.packageSha256);
  }

  /** What travelled for it so far, in this try. */
  get bytesDownloaded(): number {
    return this.#bytesDownloaded;
  }

  /** The manifest alone: it says whether the rest is worth its bytes. @throws FieldloopError as {@link downloadArtifact}; `manifest_invalid` */
  async manifest(): Promise<Manifest> {
    const { packageSha256, manifestBytes } = this.#assignment;
    if (await this.#store.isInstalled(packageSha256)) {
      const installed = await this.#store.manifestOf(packageSha256);
      if (installed) return installed;
    }
    await this.#prepare();
    const file = { file: MANIFEST_FILE, sha256: packageSha256, bytes: manifestBytes };
    if (!(await isThere(join(this.#staged, MANIFEST_FILE)))) await this.#download(file, this.#staged);
    return this.#store.readManifest(this.#staged, this.#assignment);
  }

  /**
   * All files. Of a package that is installed only those travel that the disk has harmed.
   * @throws FieldloopError as {@link downloadArtifact}; `manifest_invalid`; `storage_full`
   */
  async files(): Promise<FetchedPackage> {
    if (await this.#store.isInstalled(this.#assignment.packageSha256)) return this.#repair();
    const manifest = await this.manifest();
    await this.requireSpace(manifest);
    const files = manifestFiles(manifest, "running");
    const known = await this.#store.installedFiles();
    for (const file of files) {
      if (await this.#reuse(file, known)) this.#bytesReused += file.bytes;
      else await this.#bring(file, manifest, files);
      // Parts of a pipeline may be alike: what one file brought, another of this package need not.
      known.set(file.sha256, join(this.#staged, file.file));
    }
    return this.#fetched;
  }

  get #fetched(): FetchedPackage {
    return {
      bytesDownloaded: this.#bytesDownloaded,
      bytesReused: this.#bytesReused,
      bytesRebuilt: this.#bytesRebuilt,
      deltaBytes: this.#deltaBytes,
    };
  }

  /** File by file, each by one rename: a lane may run the package at this moment. */
  async #repair(): Promise<FetchedPackage> {
    const { packageSha256, manifestBytes } = this.#assignment;
    const directory = this.#store.installedPath(packageSha256);
    await this.#replaceHarmed(
      { file: MANIFEST_FILE, sha256: packageSha256, bytes: manifestBytes },
      directory,
    );
    const manifest = await this.#store.readManifest(directory, this.#assignment);
    for (const file of manifestFiles(manifest, "running")) await this.#replaceHarmed(file, directory);
    await this.#store.discardStaged(packageSha256);
    return this.#fetched;
  }

  async #replaceHarmed(file: PackageFile, directory: string): Promise<void> {
    if (await this.#store.isSound(this.#assignment.packageSha256, file)) return;
    await this.#prepare();
    await this.#download(file, directory);
  }

  /**
   * The package, the largest file once more (a copy or a rebuilt file before it has its name), and what the device keeps free.
   * @throws FieldloopError `storage_full`
   */
  async requireSpace(manifest: Manifest): Promise<void> {
    const files = manifestFiles(manifest, "running");
    const largest = Math.max(0, ...files.map(({ bytes }) => bytes));
    const wanted = (await this.#missingBytes(files)) + largest + AGENT_LIMITS.storageReserveBytes;
    await this.#requireFree(wanted, "Download package");
  }

  async #requireFree(wanted: number, what: string): Promise<void> {
    const free = await this.#store.freeBytes();
    if (free >= wanted) return;
    const text = `${what}: ${wanted} bytes wanted, ${free} free`;
    throw new FieldloopError("storage_full", text, { detail: { bytesMissing: wanted - free } });
  }

  async #missingBytes(files: readonly PackageFile[]): Promise<number> {
    let missing = 0;
    for (const { file, sha256, bytes } of files) {
      if (await isThere(join(this.#staged, file))) continue;
      const part = await stat(join(this.#parts, sha256)).catch(() => undefined);
      missing += Math.max(0, bytes - (part?.size ?? 0));
    }
    return missing;
  }

  async #bring(file: PackageFile, manifest: Manifest, files: readonly PackageFile[]): Promise<void> {
    if (await isThere(join(this.#staged, file.file))) return;
    const { deltas } = this.#options;
    const part = join(this.#parts, file.sha256);
    // What a download began is gone on with: the larger part of it may be here.
    if (deltas && !(await isThere(part))) {
      const { deltaBytes, rebuilt } = await deltas.bring(manifest, file, part, this.#downloadOptions(files));
      this.#bytesDownloaded += deltaBytes;
      this.#deltaBytes += deltaBytes;
      if (rebuilt) this.#bytesRebuilt += file.bytes;
    }
    await this.#download(file, this.#staged, files);
  }

  async #download(file: PackageFile, directory: string, files: readonly PackageFile[] = []): Promise<void> {
    const path = join(directory, file.file);
    const { durable } = this.#store;
    await durable.makeDirectory("staging_folder", dirname(path));
    const part = join(this.#parts, file.sha256);
    if (file.bytes === 0) await durable.writeFile("file_keep", part, "");
    else this.#bytesDownloaded += await downloadArtifact(file, part, this.#downloadOptions(files));
    await durable.rename("file_keep", part, path);
  }

  #downloadOptions(files: readonly PackageFile[]): DownloadOptions {
    return {
      ...this.#options,
      durable: this.#store.durable,
      // Somebody else may fill the disk meanwhile: what must stay free stays free.
      onCheck: async () => {
        const wanted = (await this.#missingBytes(files)) + AGENT_LIMITS.storageReserveBytes;
        await this.#requireFree(wanted, "Go on with download");
      },
    };
  }

  /**
   * A file of the same hash that the device has is copied: of a pipeline a new version often changes one part alone, and versions share
   * their golden cases. A copy and no link, so that each package stays whole whatever happens to another.
   */
  async #reuse(file: PackageFile, known: ReadonlyMap<string, string>): Promise<boolean> {
    const source = known.get(file.sha256);
    const path = join(this.#staged, file.file);
    if (source === undefined || (await isThere(path)) || !(await isThere(source))) return false;
    const { durable } = this.#store;
    await durable.makeDirectory("staging_folder", dirname(path));
    const temporary = join(this.#parts, `${file.sha256}.copy`);
    await durable.copy(source, temporary);
    if ((await hashFile(temporary)) !== file.sha256) {
      await durable.remove("copy_drop", temporary);
      return false;
    }
    await durable.rename("file_keep", temporary, path);
    return true;
  }

  async #prepare(): Promise<void> {
    await this.#store.durable.makeDirectory("staging_folder", this.#staged);
    await this.#store.durable.makeDirectory("staging_folder", this.#parts);
  }
}
