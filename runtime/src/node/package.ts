import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, LIMITS, manifestFiles, type Manifest, type PackageFile } from "@fieldloop/protocol";
import { MANIFEST_FILE, parseManifest } from "../package/manifest.js";

/** A package folder that was checked against its manifest. */
export interface ModelPackage {
  readonly dir: string;
  readonly manifest: Manifest;
  /** The file as it lies on disk; its SHA-256 is the package's identity. */
  readonly manifestBytes: Uint8Array;
  /** Lower-case hexadecimal. */
  readonly packageSha256: string;
}

export interface OpenPackageOptions {
  /** False skips the hashes of the files (they were checked before and nobody else writes here); names, sizes and links are always checked. Default true. */
  readonly verifyFiles?: boolean;
  /** Where a model only runs, the training data of its package may be absent. Default `all`: nothing may. */
  readonly purpose?: "all" | "running";
}

/**
 * Opens a package folder. Parties: whoever made or carried the folder is not trusted, its manifest's hash was or will be
 * checked by the caller against a signed statement. The folder must hold exactly the files that the manifest names (see `purpose`), each
 * a regular file with one name (no link of either kind, so that nothing outside the folder is read or shared), with the
 * size and SHA-256 that it says.
 * @throws FieldloopError `not_found`, `manifest_*`, `package_file_missing`, `package_file_unexpected`, `package_link_refused`,
 * `package_size_mismatch` or `package_hash_mismatch`
 */
export async function openPackage(dir: string, options: OpenPackageOptions = {}): Promise<ModelPackage> {
  const manifestBytes = await readManifest(dir);
  const manifest = parseManifest(manifestBytes);
  await refuseUnexpected(dir, manifestFiles(manifest));
  for (const file of manifestFiles(manifest, options.purpose))
    await checkFile(dir, file, options.verifyFiles ?? true);
  const packageSha256 = createHash("sha256").update(manifestBytes).digest("hex");
  return { dir, manifest, manifestBytes, packageSha256 };
}

/** SHA-256 of a file, streamed, in lower-case hexadecimal. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

async function readManifest(dir: string): Promise<Uint8Array> {
  const path = join(dir, MANIFEST_FILE);
  const bytes = await plainFileSize(path, MANIFEST_FILE);
  if (bytes === undefined) {
    throw new FieldloopError("not_found", `Open package: "${dir}" holds no ${MANIFEST_FILE}`);
  }
  if (bytes > LIMITS.manifestBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Open package: ${MANIFEST_FILE} has ${bytes} bytes, at most ${LIMITS.manifestBytesMax} allowed`,
    );
  }
  return new Uint8Array(await readFile(path));
}

/** Size of a regular file with one name; `undefined` where there is none. */
async function plainFileSize(path: string, name: string): Promise<number | undefined> {
  const stat = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw new FieldloopError("storage_failed", `Open package: read "${name}": ${error.message}`, {
      cause: error,
    });
  });
  if (stat === undefined) return undefined;
  if (stat.isSymbolicLink() || (stat.isFile() && stat.nlink > 1)) {
    const kind = stat.isSymbolicLink() ? "a symbolic link" : `one of ${stat.nlink} hard links`;
    throw new FieldloopError(
      "package_link_refused",
      `Open package: "${name}" is ${kind}, wanted a file of its own`,
    );
  }
  if (!stat.isFile()) {
    throw new FieldloopError("package_file_unexpected", `Open package: "${name}" is not a regular file`);
  }
  return stat.size;
}

async function refuseUnexpected(dir: string, files: readonly PackageFile[]): Promise<void> {
  const named = new Set([MANIFEST_FILE, ...files.map(({ file }) => file)]);
  const folders = new Set(
    files.filter(({ file }) => file.includes("/")).map(({ file }) => file.split("/")[0]!),
  );
  const unexpected = (name: string): FieldloopError =>
    new FieldloopError("package_file_unexpected", `Open package: "${name}" is not named by the manifest`);
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.isSymbolicLink()) {
      throw new FieldloopError("package_link_refused", `Open package: "${entry.name}" is a symbolic link`);
    }
    if (!entry.isDirectory()) {
      if (!named.has(entry.name)) throw unexpected(entry.name);
      continue;
    }
    if (!folders.has(entry.name)) throw unexpected(`${entry.name}/`);
    for (const inner of await readdir(join(dir, entry.name))) {
      if (!named.has(`${entry.name}/${inner}`)) throw unexpected(`${entry.name}/${inner}`);
    }
  }
}

async function checkFile(dir: string, file: PackageFile, withHash: boolean): Promise<void> {
  const path = join(dir, file.file);
  const size = await plainFileSize(path, file.file);
  if (size === undefined) {
    throw new FieldloopError("package_file_missing", `Open package: "${file.file}" is missing`);
  }
  if (size !== file.bytes) {
    throw new FieldloopError(
      "package_size_mismatch",
      `Open package: "${file.file}" has ${size} bytes, the manifest says ${file.bytes}`,
    );
  }
  if (!withHash) return;
  const actual = await sha256OfFile(path);
  if (actual !== file.sha256) {
    throw new FieldloopError(
      "package_hash_mismatch",
      `Open package: "${file.file}" has SHA-256 ${actual}, the manifest says ${file.sha256}`,
    );
  }
}
