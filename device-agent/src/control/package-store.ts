import { lstat, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  manifestFiles,
  manifestSchema,
  requireReadableManifest,
  type Assignment,
  type Manifest,
  type PackageFile,
} from "@fieldloop/protocol";
import type { PackageToRun } from "../ipc.js";
import { hashFile } from "./download.js";
import { Durable } from "./durable.js";
import { codeOf, reasonOf } from "./files.js";

export const MANIFEST_FILE = "manifest.json";
/** The newest form of a manifest that the schema reads. */
const MANIFEST_SCHEMA_MAX = 1;
const SHA256_NAME = /^[0-9a-f]{64}$/;

type Named = Pick<ReadonlySet<string>, "has">;

/**
 * The packages on this device's disk: `packages/{sha256}/` holds whole, verified ones only; `staging/` what is on its way in
 * (`{sha256}`, `{sha256}.parts`) and out (`{sha256}.gone`). A package moves from one to the other by a single rename, both ways: no power
 * cut leaves half a package under a name by which it could be run.
 */
export class PackageStore {
  readonly durable: Durable;
  readonly #packages: string;
  readonly #staging: string;

  constructor(directory: string, durable: Durable = new Durable()) {
    this.durable = durable;
    this.#packages = join(directory, "packages");
    this.#staging = join(directory, "staging");
  }

  async open(): Promise<void> {
    await this.durable.makeDirectory("staging_folder", this.#packages);
    await this.durable.makeDirectory("staging_folder", this.#staging);
  }

  toRun(packageSha256: string): PackageToRun {
    return { directory: this.installedPath(packageSha256), packageSha256 };
  }

  async isInstalled(packageSha256: string): Promise<boolean> {
    return isThere(join(this.installedPath(packageSha256), MANIFEST_FILE));
  }

  /** The packages that are here whole. */
  async list(): Promise<string[]> {
    return (await readdir(this.#packages)).filter((name) => SHA256_NAME.test(name));
  }

  /** Of an installed package; undefined where it is not here or cannot be read. */
  async manifestOf(packageSha256: string): Promise<Manifest | undefined> {
    const path = join(this.installedPath(packageSha256), MANIFEST_FILE);
    const text = await readFile(path, "utf8").catch(() => undefined);
    return text === undefined ? undefined : manifestSchema.safeParse(safeJson(text)).data;
  }

  /** What an installed package takes on the disk, as its manifest says; 0 where it is not here. */
  async bytesOf(packageSha256: string): Promise<number> {
    const manifest = await this.manifestOf(packageSha256);
    const files = manifest ? manifestFiles(manifest, "running") : [];
    return files.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Where each file of the installed packages lies, by its hash. */
  async installedFiles(): Promise<Map<string, string>> {
    const byHash = new Map<string, string>();
    for (const packageSha256 of await this.list()) {
      const manifest = await this.manifestOf(packageSha256);
      if (!manifest) continue;
      const directory = this.installedPath(packageSha256);
      for (const { file, sha256 } of manifestFiles(manifest, "running"))
        byHash.set(sha256, join(directory, file));
    }
    return byHash;
  }

  /**
   * Checks that the staged (or installed) package is, file by file, what the signed metadata says.
   * @throws FieldloopError `package_*`, `manifest_invalid`
   */
  async verify(assignment: Assignment): Promise<void> {
    const { packageSha256 } = assignment;
    const installed = await this.isInstalled(packageSha256);
    try {
      const directory = installed ? this.installedPath(packageSha256) : this.stagedPath(packageSha256);
      const manifest = await this.readManifest(directory, assignment);
      for (const file of manifestFiles(manifest, "running")) await verifyFile(directory, file);
    } catch (error) {
      // A harmed copy is fetched anew the next time.
      if (!installed) await this.discardStaged(packageSha256);
      throw error;
    }
  }

  /** Whether a file of the installed package is as it has to be. @throws FieldloopError `storage_failed` */
  async isSound(packageSha256: string, file: PackageFile): Promise<boolean> {
    try {
      await verifyFile(this.installedPath(packageSha256), file);
      return true;
    } catch (error) {
      if (error instanceof FieldloopError) return false;
      throw new FieldloopError("storage_failed", `Read "${file.file}": ${reasonOf(error)}`, { cause: error });
    }
  }

  /** @throws FieldloopError `package_hash_mismatch`, `package_incompatible` (of a later form), `manifest_invalid` */
  async readManifest(directory: string, assignment: Assignment): Promise<Manifest> {
    const path = join(directory, MANIFEST_FILE);
    if ((await lstat(path).catch(ifMissing)) === undefined) {
      throw new FieldloopError("package_file_missing", `Verify package: "${MANIFEST_FILE}" is missing`);
    }
    const hash = await hashFile(path);
    if (hash !== assignment.packageSha256) {
      throw new FieldloopError(
        "package_hash_mismatch",
        `Verify package: the manifest has the hash "${hash}"`,
      );
    }
    const bytes = await readFile(path);
    requireReadableManifest(bytes, { manifestSchemaMax: MANIFEST_SCHEMA_MAX });
    const parsed = manifestSchema.safeParse(safeJson(bytes.toString("utf8")));
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

  /** Everything of it is made durable before one rename: from then on the package is whole and stays so. */
  async install(packageSha256: string): Promise<void> {
    if (await this.isInstalled(packageSha256)) return this.discardStaged(packageSha256);
    const staged = this.stagedPath(packageSha256);
    const target = this.installedPath(packageSha256);
    await this.durable.remove("package_clear", target);
    await this.durable.seal(staged);
    await this.durable.rename("package_install", staged, target);
    await this.durable.remove("staging_drop", this.partsPath(packageSha256));
  }

  async discardStaged(packageSha256: string): Promise<void> {
    await this.durable.remove("staging_drop", this.stagedPath(packageSha256));
    await this.durable.remove("staging_drop", this.partsPath(packageSha256));
  }

  /** Takes a package away: by one rename first, so that it is never half there. */
  async retire(packageSha256: string): Promise<void> {
    const gone = join(this.#staging, `${packageSha256}.gone`);
    await this.durable.remove("staging_drop", gone);
    await this.durable.rename("package_retire", this.installedPath(packageSha256), gone);
    await this.durable.remove("staging_drop", gone);
  }

  /**
   * Removes every package but those named, and all staging but theirs. Of a package that is here whole the staging is left over, unless
   * it is worked on (`busy`) at this moment.
   */
  async keepOnly(packages: Named, busy: Named): Promise<void> {
    for (const name of await readdir(this.#packages)) {
      if (!packages.has(name)) await this.retire(name);
    }
    for (const name of await readdir(this.#staging)) {
      const packageSha256 = name.replace(/\.parts$/, "");
      const isWanted = packages.has(packageSha256) && !(await this.isInstalled(packageSha256));
      if (isWanted || busy.has(packageSha256)) continue;
      await this.durable.remove("staging_drop", join(this.#staging, name));
    }
  }

  /** What may still be written where packages are. */
  async freeBytes(): Promise<number> {
    return this.durable.freeBytes(this.#staging);
  }

  installedPath(packageSha256: string): string {
    return join(this.#packages, packageSha256);
  }
  stagedPath(packageSha256: string): string {
    return join(this.#staging, packageSha256);
  }
  /** Files that are not whole yet, by their hash. */
  partsPath(packageSha256: string): string {
    return `${this.stagedPath(packageSha256)}.parts`;
  }
}

async function verifyFile(directory: string, file: PackageFile): Promise<void> {
  const path = join(directory, file.file);
  const info = await lstat(path).catch(ifMissing);
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

export async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

function ifMissing(error: unknown): undefined {
  if (codeOf(error) === "ENOENT") return undefined;
  throw error;
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
