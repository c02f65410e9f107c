import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { FieldloopError, type ManifestInput, type PackageFile } from "@fieldloop/protocol";
import { formatManifest, MANIFEST_FILE, parseManifest } from "../package/manifest.js";
import type { ModelPackage } from "./package.js";

/** A manifest before its files were hashed: every `{ file, sha256, bytes }` is `{ file }`, sizes and hashes come from the files. */
type Unhashed<T> = T extends { file: string; sha256: string; bytes: number }
  ? Omit<{ [Key in keyof T]: Unhashed<T[Key]> }, "sha256" | "bytes">
  : T extends readonly (infer Entry)[]
    ? Unhashed<Entry>[]
    : T extends object
      ? { [Key in keyof T]: Unhashed<T[Key]> }
      : T;

type NodeDraft = NonNullable<ManifestInput["nodes"]>[number];

export type ManifestDraft = Omit<ManifestInput, (typeof FILE_FIELDS)[number] | "nodes"> &
  Unhashed<Pick<ManifestInput, (typeof FILE_FIELDS)[number]>> & {
    nodes?: (Omit<NodeDraft, "variants"> & Unhashed<Pick<NodeDraft, "variants">>)[];
  };

/** The fields of a manifest that name files. */
const FILE_FIELDS = ["variants", "golden", "baseline", "replay", "holdout"] as const;

/**
 * Writes a package folder: hashes the files, completes and checks the manifest, and puts the folder in place by one
 * rename, so that a reader sees a whole package or none.
 * @param files contents by the names that the manifest uses
 * @throws FieldloopError `already_exists` where `dir` is there already; `package_file_missing` or `package_file_unexpected`
 * where manifest and files differ; `manifest_*`
 */
export async function writePackage(
  dir: string,
  draft: ManifestDraft,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<ModelPackage> {
  const used = new Set<string>();
  const hashed: Record<string, unknown> = { ...draft };
  for (const field of FILE_FIELDS) hashed[field] = complete(draft[field], files, used);
  // Of a node its variants alone: an input of it may well be called "file".
  hashed["nodes"] = draft.nodes?.map((node) => ({
    ...node,
    variants: complete(node.variants, files, used),
  }));
  const manifestBytes = formatManifest(parseManifest(encodeJson(hashed)));
  const manifest = parseManifest(manifestBytes);
  const extra = Object.keys(files).find((name) => !used.has(name));
  if (extra !== undefined) {
    throw new FieldloopError(
      "package_file_unexpected",
      `Write package: "${extra}" is not named by the manifest`,
    );
  }
  const target = resolve(dir);
  const scratch = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    await mkdir(scratch, { recursive: true });
    for (const [name, bytes] of Object.entries(files)) await writeDurably(join(scratch, name), bytes);
    await writeDurably(join(scratch, MANIFEST_FILE), manifestBytes);
    await syncFolder(scratch);
    await moveIntoPlace(scratch, target);
    await syncFolder(dirname(target));
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
  return { dir: target, manifest, manifestBytes, packageSha256: sha256(manifestBytes) };
}

/** A copy of a part of the draft in which every `{ file }` has its hash and size. */
function complete(value: unknown, files: Readonly<Record<string, Uint8Array>>, used: Set<string>): unknown {
  if (Array.isArray(value)) return value.map((entry) => complete(entry, files, used));
  if (typeof value !== "object" || value === null) return value;
  const copy: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(value)) copy[key] = complete(entry, files, used);
  return typeof copy["file"] === "string" ? { ...copy, ...hashFile(copy["file"], files, used) } : copy;
}

function hashFile(
  name: string,
  files: Readonly<Record<string, Uint8Array>>,
  used: Set<string>,
): Omit<PackageFile, "file"> {
  const bytes = Object.hasOwn(files, name) ? files[name] : undefined;
  if (bytes === undefined) {
    throw new FieldloopError("package_file_missing", `Write package: no contents for "${name}"`);
  }
  used.add(name);
  return { sha256: sha256(bytes), bytes: bytes.length };
}

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const file = await open(path, "wx", 0o644);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function moveIntoPlace(scratch: string, target: string): Promise<void> {
  try {
    await rename(scratch, target);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ENOTEMPTY" || code === "EEXIST" || code === "ENOTDIR") {
      throw new FieldloopError(
        "already_exists",
        `Write package: "${target}" is there already; choose another folder (--out) or version (--model-version), or remove it`,
        { cause },
      );
    }
    throw new FieldloopError("storage_failed", `Write package: ${(cause as Error).message}`, { cause });
  }
}

/** Makes the names in a folder durable; some systems cannot open a folder, and need no such call. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function encodeJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
