import { z } from "zod";
import { LIMITS } from "./limits.js";
import { deviceClassSchema, modelNameSchema, sha256Schema, versionSchema } from "./names.js";

/**
 * What server and device agree on above TUF (specification 1.0.x): which targets there are, what their custom metadata say, and
 * how files are named. Parties: the owners of the root and targets keys, who decide what may ever be installed and who may
 * direct devices; the server, which holds the snapshot and timestamp keys and the director key; devices, which start from a root
 * given to them when they enrolled. Online keys alone never make a device install a file that the targets keys did not sign.
 */
export const TRUST_ROLES = ["root", "targets", "snapshot", "timestamp"] as const;
export const trustRoleSchema = z.enum(TRUST_ROLES);
export type TrustRole = z.output<typeof trustRoleSchema>;

/** Where metadata and targets are served, under the server's origin. */
export const TRUST_METADATA_PATH = "/tuf/metadata/";
export const TRUST_TARGETS_PATH = "/tuf/targets/";

/** TUF target that holds the keys that may sign desired states and commands. */
export const DIRECTOR_TARGET = "fieldloop/director.json";

/** TUF target path of a package: its `manifest.json`, which holds the hash of every other file. */
export function packageTargetPath(model: string, version: number): string {
  return `packages/${model}/${version}/manifest.json`;
}

/** The inverse of {@link packageTargetPath}; `undefined` for any other path. */
export function parsePackageTargetPath(path: string): { model: string; version: number } | undefined {
  const match = /^packages\/([^/]+)\/([1-9]\d{0,6})\/manifest\.json$/.exec(path);
  if (!match) return undefined;
  const parsed = z
    .object({ model: modelNameSchema, version: versionSchema })
    .safeParse({ model: match[1], version: Number(match[2]) });
  return parsed.success ? parsed.data : undefined;
}

/** `parts/1/{sha256}.manifest.json`: a target's file with consistent snapshots (TUF section 6.2.2). */
export function hashedTargetPath(path: string, sha256: string): string {
  const slash = path.lastIndexOf("/") + 1;
  return `${path.slice(0, slash)}${sha256}.${path.slice(slash)}`;
}

/** `3.root.json`, and `timestamp.json`, which has no number (TUF section 6.2.1). */
export function metadataFileName(role: TrustRole, version: number): string {
  return role === "timestamp" ? "timestamp.json" : `${version}.${role}.json`;
}

/** The inverse of {@link metadataFileName}; the version of a timestamp is not in its name. */
export function parseMetadataFileName(name: string): { role: TrustRole; version: number | null } | undefined {
  if (name === "timestamp.json") return { role: "timestamp", version: null };
  const match = /^([1-9]\d{0,8})\.(root|targets|snapshot)\.json$/.exec(name);
  return match ? { role: match[2] as TrustRole, version: Number(match[1]) } : undefined;
}

export const EVIDENCE_VERDICTS = ["none", "passed", "failed", "forced"] as const;

/** What the owners of the targets keys vouched for beside the bytes: how the version did when it was signed. */
export const targetEvidenceSchema = z.object({
  /** Id of the evaluation; null where there was none. */
  evaluation: z.string().max(64).nullable(),
  verdict: z.enum(EVIDENCE_VERDICTS),
  /** Why a version without a passing evaluation was let through. */
  reason: z.string().max(500).optional(),
});
export type TargetEvidence = z.output<typeof targetEvidenceSchema>;

/** `custom.fieldloop` of a package's target. */
export const packageTargetSchema = z.object({
  model: modelNameSchema,
  version: versionSchema,
  /** SHA-256 of manifest.json: equal to the target's own hash. */
  packageSha256: sha256Schema,
  /** Device classes that it is made for; null: any. */
  deviceClasses: z.array(deviceClassSchema).min(1).max(LIMITS.deviceClassesMax).nullable(),
  evidence: targetEvidenceSchema,
});
export type PackageTarget = z.output<typeof packageTargetSchema>;

export const directorKeySchema = z.object({
  keyId: z.string().regex(/^[0-9a-f]{16}$/),
  /** Ed25519, 32 bytes in hexadecimal. */
  publicKey: z.string().regex(/^[0-9a-f]{64}$/),
});
/** Content of {@link DIRECTOR_TARGET}. */
export const directorTargetSchema = z.object({
  keys: z.array(directorKeySchema).min(1).max(LIMITS.directorKeysMax),
});
export type DirectorTarget = z.output<typeof directorTargetSchema>;
