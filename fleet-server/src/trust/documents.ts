import {
  FieldloopError,
  LIMITS,
  TRUST_ROLES,
  sha256Hex,
  trustKeySchema,
  type TrustKey,
  type TrustRole,
} from "@fieldloop/protocol";
import {
  MetaFile,
  Metadata,
  MetadataKind,
  Root,
  Snapshot,
  TargetFile,
  Targets,
  Timestamp,
} from "@tufjs/models";
import { canonicalBytes, toTufKey, trustKeyId } from "./keys.js";

/** Who signs for a role, and how many of them it takes. */
export interface RoleKeys {
  readonly keys: readonly TrustKey[];
  readonly threshold: number;
}
export type RootRoles = Readonly<Record<TrustRole, RoleKeys>>;

export type SignedPart = Root | Targets | Snapshot | Timestamp;

/** Metadata as published: never serialized again, so that its bytes and hash stay what others know. */
export interface Published<Part extends SignedPart> {
  readonly metadata: Metadata<Part>;
  readonly bytes: Uint8Array;
  readonly sha256: string;
}

/** The form of each role's `signed` part. */
export interface PartOf {
  root: Root;
  targets: Targets;
  snapshot: Snapshot;
  timestamp: Timestamp;
}

/** The newest metadata of each role. */
export type Head = { readonly [Role in TrustRole]: Published<PartOf[Role]> };

/** A target as it should stand in targets metadata. */
export interface WantedTarget {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  /** Becomes `custom.fieldloop`. */
  readonly custom?: object;
}

/** TUF section 4.2: seconds, in UTC. */
export function expiresText(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}

export function expiresTime(part: SignedPart): number {
  return Date.parse(part.expires);
}

export function rolesOf(root: Root): RootRoles {
  const of = (role: TrustRole): RoleKeys => {
    const { keyIDs, threshold } = root.roles[role]!;
    return { keys: keyIDs.map((keyId) => trustKeySchema.parse(root.keys[keyId]!.toJSON())), threshold };
  };
  return { root: of("root"), targets: of("targets"), snapshot: of("snapshot"), timestamp: of("timestamp") };
}

export function keyIdsOf(role: RoleKeys): string[] {
  return role.keys.map(trustKeyId);
}

export function sameRoles(one: RootRoles, other: RootRoles): boolean {
  return TRUST_ROLES.every((role) => {
    const ids = new Set(keyIdsOf(one[role]));
    const others = keyIdsOf(other[role]);
    return (
      one[role].threshold === other[role].threshold &&
      ids.size === others.length &&
      others.every((keyId) => ids.has(keyId))
    );
  });
}

export function buildRoot(roles: RootRoles, version: number, expires: number): Root {
  const root = new Root({
    version,
    specVersion: SPEC_VERSION,
    expires: expiresText(expires),
    consistentSnapshot: true,
  });
  for (const role of TRUST_ROLES) {
    const keys = roles[role].keys.map(toTufKey).sort((one, other) => (one.keyID < other.keyID ? -1 : 1));
    for (const key of keys) root.addKey(key, role);
    Object.assign(root.roles[role]!, { threshold: roles[role].threshold });
  }
  return root;
}

export function buildTargets(wanted: readonly WantedTarget[], version: number, expires: number): Targets {
  const targets = new Targets({ version, specVersion: SPEC_VERSION, expires: expiresText(expires) });
  for (const target of [...wanted].sort((one, other) => (one.path < other.path ? -1 : 1))) {
    targets.addTarget(
      new TargetFile({
        path: target.path,
        length: target.bytes,
        hashes: { sha256: target.sha256 },
        ...(target.custom
          ? { unrecognizedFields: { custom: { fieldloop: JSON.parse(JSON.stringify(target.custom)) } } }
          : {}),
      }),
    );
  }
  return targets;
}

export function sameTargets(one: Targets, other: Targets): boolean {
  return (
    sha256Hex(canonicalBytes(one.toJSON()["targets"] as object)) ===
    sha256Hex(canonicalBytes(other.toJSON()["targets"] as object))
  );
}

/** Length and hash are in it, so that a mirror cannot mix metadata of different times. */
export function buildSnapshot(targets: Published<Targets>, version: number, expires: number): Snapshot {
  return new Snapshot({
    version,
    specVersion: SPEC_VERSION,
    expires: expiresText(expires),
    meta: { "targets.json": metaFile(targets) },
  });
}

export function buildTimestamp(snapshot: Published<Snapshot>, version: number, expires: number): Timestamp {
  return new Timestamp({
    version,
    specVersion: SPEC_VERSION,
    expires: expiresText(expires),
    snapshotMeta: metaFile(snapshot),
  });
}

function metaFile({ metadata, bytes, sha256 }: Published<Targets> | Published<Snapshot>): MetaFile {
  return new MetaFile({ version: metadata.signed.version, length: bytes.length, hashes: { sha256 } });
}

/** @throws FieldloopError `limit_exceeded` for metadata that no device would read */
export function publishedForm<Part extends SignedPart>(metadata: Metadata<Part>): Published<Part> {
  const bytes = Buffer.from(`${JSON.stringify(metadata.toJSON())}\n`);
  const role: TrustRole = metadata.signed.type;
  if (bytes.length > BYTES_MAX[role]) {
    throw new FieldloopError(
      "limit_exceeded",
      `Publish ${role} metadata: ${bytes.length} bytes, devices read ${BYTES_MAX[role]}`,
    );
  }
  return { metadata, bytes, sha256: sha256Hex(bytes) };
}

/** @throws FieldloopError `trust_metadata_malformed` */
export function readPublished<Role extends TrustRole>(
  role: Role,
  bytes: Uint8Array,
): Published<PartOf[Role]> {
  try {
    const json = JSON.parse(Buffer.from(bytes).toString("utf8")) as never;
    const metadata = Metadata.fromJSON(KINDS[role] as MetadataKind.Root, json) as unknown as Metadata<
      PartOf[Role]
    >;
    return { metadata, bytes, sha256: sha256Hex(bytes) };
  } catch (cause) {
    throw new FieldloopError("trust_metadata_malformed", `Read ${role} metadata: not of their form`, {
      cause,
    });
  }
}

/** What stands in `signed` of a file or request. @throws FieldloopError `trust_metadata_malformed` */
export function readSigned<Role extends "root" | "targets">(role: Role, signed: object): PartOf[Role] {
  try {
    const part = role === "root" ? Root.fromJSON(signed as never) : Targets.fromJSON(signed as never);
    return part as PartOf[Role];
  } catch (cause) {
    throw new FieldloopError("trust_metadata_malformed", `Read ${role} metadata: not of their form`, {
      cause,
    });
  }
}

const SPEC_VERSION = "1.0.31";

const KINDS = {
  root: MetadataKind.Root,
  targets: MetadataKind.Targets,
  snapshot: MetadataKind.Snapshot,
  timestamp: MetadataKind.Timestamp,
} as const;

const BYTES_MAX: Readonly<Record<TrustRole, number>> = {
  root: LIMITS.rootBytesMax,
  targets: LIMITS.targetsBytesMax,
  snapshot: LIMITS.snapshotBytesMax,
  timestamp: LIMITS.timestampBytesMax,
};
