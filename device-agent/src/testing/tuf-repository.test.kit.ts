import { createHash } from "node:crypto";
import { canonicalJson, makeTufKey, type Json, type JsonObject, type TufKey } from "./tuf-keys.test.kit.js";

const DAY_MS = 86_400_000;
const TOP_LEVEL = ["root", "timestamp", "snapshot", "targets"] as const;

export interface RoleKeys extends JsonObject {
  keyids: string[];
  threshold: number;
}
export interface MetaEntry extends JsonObject {
  version: number;
}
export interface Signed extends JsonObject {
  _type: string;
  spec_version: string;
  version: number;
  expires: string;
}
export interface RootSigned extends Signed {
  consistent_snapshot: boolean;
  keys: { [keyId: string]: JsonObject };
  roles: { [role: string]: RoleKeys };
}
export interface ListSigned extends Signed {
  meta: { [file: string]: MetaEntry };
}
export interface TargetEntry extends JsonObject {
  length: number;
  hashes: { [algorithm: string]: string };
}
export interface Delegation extends RoleKeys {
  name: string;
  terminating: boolean;
}
export interface TargetsSigned extends Signed {
  targets: { [path: string]: TargetEntry };
}

export interface DelegationOptions {
  readonly paths?: string[];
  readonly pathHashPrefixes?: string[];
  readonly terminating?: boolean;
  readonly threshold?: number;
  /** One of its own by default. */
  readonly keys?: readonly TufKey[];
}

/**
 * A TUF repository whose owner may make any mistake, and be anybody: plain JSON, signed with Node's own cryptography, so that it shares
 * no code with what is tested. Change the `signed` parts, then {@link publish}; what was published stays under its version number.
 */
export class TufRepository {
  readonly root: RootSigned;
  readonly timestamp: ListSigned;
  readonly snapshot: ListSigned;
  readonly targets: TargetsSigned;
  /** Every targets role but the top-level one. */
  readonly delegated = new Map<string, TargetsSigned>();
  readonly signers = new Map<string, TufKey[]>();
  /** `3.root.json` → bytes as served; timestamps are `timestamp.json`. */
  readonly files = new Map<string, Buffer>();
  /** Target path → content as served. */
  readonly contents = new Map<string, Buffer>();
  /** Lists name length and hash of metadata too. */
  withHashes = false;
  readonly expiry: string;
  readonly #published = new Set<string>();

  /** Each role has one key; version 1 of everything is published. `now`: milliseconds since the epoch. */
  constructor(
    options: { readonly now?: number; readonly key?: () => TufKey; readonly publish?: boolean } = {},
  ) {
    this.expiry = isoTime((options.now ?? Date.now()) + 30 * DAY_MS);
    const common = { spec_version: "1.0.31", version: 1, expires: this.expiry };
    this.root = { _type: "root", ...common, consistent_snapshot: true, keys: {}, roles: {} };
    this.targets = { _type: "targets", ...common, targets: {} };
    this.snapshot = { _type: "snapshot", ...common, meta: {} };
    this.timestamp = { _type: "timestamp", ...common, meta: {} };
    for (const role of TOP_LEVEL) {
      this.root.roles[role] = { keyids: [], threshold: 1 };
      this.addKey(role, (options.key ?? makeTufKey)());
    }
    if (options.publish !== false) this.publish("root", "targets", "snapshot", "timestamp");
  }

  signed(role: string): Signed {
    switch (role) {
      case "root":
        return this.root;
      case "timestamp":
        return this.timestamp;
      case "snapshot":
        return this.snapshot;
      case "targets":
        return this.targets;
      default:
        return this.targetsOf(role);
    }
  }

  targetsOf(role: string): TargetsSigned {
    const found = role === "targets" ? this.targets : this.delegated.get(role);
    if (!found) throw new Error(`No role "${role}" in the test repository`);
    return found;
  }

  /** Lists a key for a top-level role and signs with it from now on. */
  addKey(role: string, key: TufKey = makeTufKey()): TufKey {
    this.listKey(role, key);
    this.addSigner(role, key);
    return key;
  }

  /** Lists a key without signing with it. */
  listKey(role: string, key: TufKey): void {
    this.root.keys[key.keyId] = key.entry;
    const { keyids } = this.root.roles[role]!;
    if (!keyids.includes(key.keyId)) keyids.push(key.keyId);
  }

  addSigner(role: string, key: TufKey): void {
    this.signers.set(role, [...(this.signers.get(role) ?? []), key]);
  }

  /** New keys instead of all old ones, as many as the threshold wants. */
  rotateKeys(role: string): void {
    this.dropKeys(role);
    for (let count = 0; count < this.root.roles[role]!.threshold; count++) this.addKey(role);
  }

  dropKeys(role: string): void {
    this.root.roles[role]!.keyids = [];
    this.signers.set(role, []);
  }

  addTarget(role: string, path: string, content: string | Uint8Array, custom?: JsonObject): TargetEntry {
    const bytes = Buffer.from(content);
    const entry: TargetEntry = { length: bytes.length, hashes: { sha256: hashOf("sha256", bytes) } };
    if (custom) entry["custom"] = custom;
    this.targetsOf(role).targets[path] = entry;
    this.contents.set(path, bytes);
    return entry;
  }

  /** Lets `delegator` trust a role, which is made where there is none yet. */
  delegate(delegator: string, name: string, options: DelegationOptions = {}): void {
    const keys = options.keys ?? [makeTufKey()];
    const signed = this.targetsOf(delegator);
    const delegations = (signed["delegations"] ??= { keys: {}, roles: [] }) as {
      keys: { [keyId: string]: Json };
      roles: Json[];
    };
    for (const key of keys) delegations.keys[key.keyId] = key.entry;
    delegations.roles.push({
      name,
      keyids: keys.map(({ keyId }) => keyId),
      threshold: options.threshold ?? 1,
      terminating: options.terminating ?? false,
      ...(options.pathHashPrefixes
        ? { path_hash_prefixes: options.pathHashPrefixes }
        : { paths: options.paths ?? ["*"] }),
    });
    for (const key of keys) this.addSigner(name, key);
    if (!this.delegated.has(name)) this.addRole(name);
  }

  addRole(name: string): TargetsSigned {
    const common = { spec_version: "1.0.31", version: 1, expires: this.expiry };
    const made: TargetsSigned = { _type: "targets", ...common, targets: {} };
    this.delegated.set(name, made);
    return made;
  }

  /** Signs these roles anew, one version up where one was published before, and names them in the list above them. */
  publish(...roles: string[]): void {
    for (const role of roles) {
      if (this.#published.has(role)) this.signed(role).version++;
      this.publishAs(role);
    }
  }

  /** Publishes a role as it stands, without another version; `fileVersion` where its file is named by another one. */
  publishAs(role: string, fileVersion?: number): Buffer {
    this.#published.add(role);
    const signed = this.signed(role);
    const bytes = this.serialize(role);
    this.files.set(fileOf(role, fileVersion ?? signed.version), bytes);
    const entry: MetaEntry = { version: signed.version };
    if (this.withHashes)
      Object.assign(entry, { length: bytes.length, hashes: { sha256: hashOf("sha256", bytes) } });
    if (role === "snapshot") this.timestamp.meta["snapshot.json"] = entry;
    else if (role !== "root" && role !== "timestamp") this.snapshot.meta[`${role}.json`] = entry;
    return bytes;
  }

  /** Targets, snapshot and timestamp, as after a change of the targets. */
  publishTargets(...delegated: string[]): void {
    this.publish(...delegated, "targets", "snapshot", "timestamp");
  }

  /** The signed bytes of a role as it stands. */
  serialize(role: string): Buffer {
    const signed = this.signed(role);
    const payload = Buffer.from(canonicalJson(signed));
    const signatures = (this.signers.get(role) ?? []).map((key) => ({
      keyid: key.keyId,
      sig: key.sign(payload),
    }));
    return Buffer.from(JSON.stringify({ signatures, signed }));
  }

  /** What is served now: the newest of a role, or that of one version. */
  file(role: string, version: number = this.signed(role).version): Buffer {
    const bytes = this.files.get(fileOf(role, version));
    if (!bytes) throw new Error(`The test repository has not published version ${version} of "${role}"`);
    return bytes;
  }

  /** Changes published bytes as JSON: what no signer would make. */
  edit(role: string, change: (document: { signatures: Json[]; signed: JsonObject }) => void): void {
    const name = fileOf(role, this.signed(role).version);
    const document = JSON.parse(this.files.get(name)!.toString("utf8")) as {
      signatures: Json[];
      signed: JsonObject;
    };
    change(document);
    this.files.set(name, Buffer.from(JSON.stringify(document)));
  }

  /** The first root, which a client starts from. */
  get factoryRoot(): Buffer {
    return this.file("root", 1);
  }
}

export function fileOf(role: string, version: number): string {
  return role === "timestamp" ? "timestamp.json" : `${version}.${role}.json`;
}

export function hashOf(algorithm: "sha256" | "sha512", bytes: Uint8Array): string {
  return createHash(algorithm).update(bytes).digest("hex");
}

/** `2026-11-27T00:00:00Z`: whole seconds, as TUF writes times. */
export function isoTime(time: number): string {
  return new Date(time).toISOString().replace(/\.\d{3}Z$/, "Z");
}
