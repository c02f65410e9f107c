import {
  copyFile,
  lstat,
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  statfs,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  FieldloopError,
  manifestFiles,
  manifestSchema,
  PACKAGE_TYPE,
  decodeMessage,
  verify,
  type Assignment,
  type Manifest,
  type PackageFile,
  type PublicKey,
} from "@fieldloop/protocol";
import type { PackageToRun } from "../ipc.js";
import { type DownloadOptions, downloadArtifact, hashFile } from "./download.js";
import { codeOf, ensureDirectory, reasonOf, syncDirectory } from "./files.js";

const MANIFEST_FILE = "manifest.json";

export interface FetchedPackage {
  readonly bytesDownloaded: number;
  /** Files with the same hash in any installed package, or twice in this one, copied instead. */
  readonly bytesReused: number;
}

/**
 * The packages on this device's disk: `packages/{sha256}/` holds whole, verified ones only; `staging/` what is on its way.
 * A package moves from one to the other by a single rename.
 */
export class PackageStore {
  readonly #packages: string;
  readonly #staging: string;

  constructor(directory: string) {
    this.#packages = join(directory, "packages");
    this.#staging = join(directory, "staging");
  }

  async open(): Promise<void> {
    await ensureDirectory(this.#packages);
    await ensureDirectory(this.#staging);
  }

  toRun(packageSha256: string): PackageToRun {
    return { directory: this.#installed(packageSha256), packageSha256 };
  }

  async isInstalled(packageSha256: string): Promise<boolean> {
    return exists(join(this.#installed(packageSha256), MANIFEST_FILE));
  }

  /** The packages that are here whole. */
  async list(): Promise<string[]> {
    return (await readdir(this.#packages)).filter((name) => /^[0-9a-f]{64}$/.test(name));
  }

  /** Of an installed package; undefined where it is not here or cannot be read. */
  async manifestOf(packageSha256: string): Promise<Manifest | undefined> {
    const path = join(this.#installed(packageSha256), MANIFEST_FILE);
    const text = await readFile(path, "utf8").catch(() => undefined);
    return text === undefined ? undefined : manifestSchema.safeParse(safeJson(text)).data;
  }

  /**
   * Brings every file of the package into staging; what is there from an earlier, interrupted try is gone on with.
   * @throws FieldloopError as {@link downloadArtifact}; `manifest_invalid`; `storage_full`
   */
  async fetch(assignment: Assignment, options: DownloadOptions): Promise<FetchedPackage> {
    if (await this.isInstalled(assignment.packageSha256)) return { bytesDownloaded: 0, bytesReused: 0 };
    const directory = this.#staged(assignment.packageSha256);
    const parts = `${directory}.parts`;
    await ensureDirectory(directory);
    await ensureDirectory(parts);
    let bytesDownloaded = 0;
    let bytesReused = 0;
    const manifestFile = {
      file: MANIFEST_FILE,
      sha256: assignment.packageSha256,
      bytes: assignment.manifestBytes,
    };
    bytesDownloaded += await this.#fetchFile(manifestFile, directory, parts, options);
    const manifest = await this.#readManifest(directory, assignment);
    const files = manifestFiles(manifest, "running");
    await this.#checkSpace(files);
    const known = await this.#installedFiles();
    for (const file of files) {
      if (await this.#reuse(file, directory, known)) bytesReused += file.bytes;
      else bytesDownloaded += await this.#fetchFile(file, directory, parts, options);
      // Parts of a pipeline may be alike: what one file brought, another of this package need not.
      known.set(file.sha256, join(directory, file.file));
    }
    return { bytesDownloaded, bytesReused };
  }

  async #fetchFile(
    file: PackageFile,
    directory: string,
    parts: string,
    options: DownloadOptions,
  ): Promise<number> {
    const path = join(directory, file.file);
    if (await exists(path)) return 0;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const part = join(parts, file.sha256);
    let bytes = 0;
    if (file.bytes === 0) await writeFile(part, "");
    else bytes = await downloadArtifact(file, part, options);
    await rename(part, path);
    return bytes;
  }

  /**
   * A file of the same hash that the device has is copied: of a pipeline a new version often changes one part alone, and versions share
   * their golden cases. A copy and no link, so that each package stays whole whatever happens to another.
   */
  async #reuse(file: PackageFile, directory: string, known: ReadonlyMap<string, string>): Promise<boolean> {
    const source = known.get(file.sha256);
    const path = join(directory, file.file);
    if (source === undefined || (await exists(path))) return false;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const temporary = `${path}.tmp`;
    await copyFile(source, temporary);
    await syncFile(temporary);
    if ((await hashFile(temporary)) !== file.sha256) {
      await rm(temporary, { force: true });
      return false;
    }
    await rename(temporary, path);
    return true;
  }

  async #installedFiles(): Promise<Map<string, string>> {
    const byHash = new Map<string, string>();
    for (const name of await readdir(this.#packages)) {
      const directory = join(this.#packages, name);
      const text = await readFile(join(directory, MANIFEST_FILE), "utf8").catch(() => undefined);
      const parsed = text === undefined ? undefined : manifestSchema.safeParse(safeJson(text));
      if (!parsed?.success) continue;
      for (const file of manifestFiles(parsed.data, "running"))
        byHash.set(file.sha256, join(directory, file.file));
    }
    return byHash;
  }

  async #checkSpace(files: readonly PackageFile[]): Promise<void> {
    const wanted = files.reduce((sum, file) => sum + file.bytes, 0) * 1.1;
    const { bavail, bsize } = await statfs(this.#staging);
    if (bavail * bsize < wanted) {
      throw new FieldloopError(
        "storage_full",
        `Download package: ${Math.ceil(wanted)} bytes wanted, ${bavail * bsize} free`,
      );
    }
  }

  /**
   * Checks that the staged (or installed) package is, file by file, what the signed statement says.
   * @throws FieldloopError `package_*`, `manifest_invalid`
   */
  async verify(assignment: Assignment): Promise<void> {
    const installed = await this.isInstalled(assignment.packageSha256);
    const directory = installed
      ? this.#installed(assignment.packageSha256)
      : this.#staged(assignment.packageSha256);
    try {
      const manifest = await this.#readManifest(directory, assignment);
      for (const file of manifestFiles(manifest, "running")) await verifyFile(directory, file);
    } catch (error) {
      // A harmed copy is fetched anew the next time.
      if (!installed) await this.discardStaged(assignment.packageSha256);
      throw error;
    }
  }

  async #readManifest(directory: string, assignment: Assignment): Promise<Manifest> {
    const path = join(directory, MANIFEST_FILE);
    const hash = await hashFile(path);
    if (hash !== assignment.packageSha256) {
      throw new FieldloopError(
        "package_hash_mismatch",
        `Verify package: the manifest has the hash "${hash}"`,
      );
    }
    const parsed = manifestSchema.safeParse(safeJson(await readFile(path, "utf8")));
    if (!parsed.success) {
      throw new FieldloopError("manifest_invalid", "Verify package: the manifest does not match its schema");
    }
    if (parsed.data.model !== assignment.model || parsed.data.version !== assignment.version) {
      throw new FieldloopError(
        "manifest_invalid",
        `Verify package: it says ${parsed.data.model}@${parsed.data.version}, wanted ${assignment.model}@${assignment.version}`,
      );
    }
    return parsed.data;
  }

  /** One rename: from then on the package is whole and stays so. */
  async install(packageSha256: string): Promise<void> {
    if (await this.isInstalled(packageSha256)) return;
    const target = this.#installed(packageSha256);
    try {
      await rm(target, { recursive: true, force: true });
      await rename(this.#staged(packageSha256), target);
      await syncDirectory(this.#packages);
      await rm(`${this.#staged(packageSha256)}.parts`, { recursive: true, force: true });
    } catch (cause) {
      throw new FieldloopError("storage_failed", `Install package: ${reasonOf(cause)}`, { cause });
    }
  }

  async discardStaged(packageSha256: string): Promise<void> {
    await rm(this.#staged(packageSha256), { recursive: true, force: true });
    await rm(`${this.#staged(packageSha256)}.parts`, { recursive: true, force: true });
  }

  /** Removes every package but those named, and all staging but theirs. */
  async keepOnly(packages: Pick<ReadonlySet<string>, "has">): Promise<void> {
    for (const directory of [this.#packages, this.#staging]) {
      for (const name of await readdir(directory)) {
        if (packages.has(name.replace(/\.parts$/, ""))) continue;
        await rm(join(directory, name), { recursive: true, force: true });
      }
    }
  }

  #installed(packageSha256: string): string {
    return join(this.#packages, packageSha256);
  }

  #staged(packageSha256: string): string {
    return join(this.#staging, packageSha256);
  }
}

/**
 * Checks the maker's signature over the package that an assignment names.
 * @throws FieldloopError `package_signature_*`, `cbor_*`, `message_schema`, `package_hash_mismatch`
 */
export function verifyStatement(assignment: Assignment, fleetKeys: readonly PublicKey[]): void {
  const statement = decodeMessage("packageStatement", verify(PACKAGE_TYPE, assignment.statement, fleetKeys));
  const fits =
    statement.manifestSha256 === assignment.packageSha256 &&
    statement.manifestBytes === assignment.manifestBytes &&
    statement.model === assignment.model &&
    statement.version === assignment.version;
  if (!fits) {
    throw new FieldloopError(
      "package_hash_mismatch",
      `Verify package: the statement is about ${statement.model}@${statement.version}, the assignment about ${assignment.model}@${assignment.version} or another hash`,
    );
  }
}

async function verifyFile(directory: string, file: PackageFile): Promise<void> {
  const path = join(directory, file.file);
  const info = await lstat(path).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  });
  if (!info?.isFile()) {
    throw new FieldloopError("package_file_missing", `Verify package: "${file.file}" is missing`);
  }
  if (info.size !== file.bytes) {
    throw new FieldloopError(
      "package_size_mismatch",
      `Verify package: "${file.file}" has ${info.size} bytes, wanted ${file.bytes}`,
    );
  }
  if ((await hashFile(path)) !== file.sha256) {
    throw new FieldloopError("package_hash_mismatch", `Verify package: "${file.file}" has another hash`);
  }
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
