import { constants, createHash, generateKeyPairSync, sign as signBytes, type KeyObject } from "node:crypto";

/** A plain JSON value as TUF metadata are made of: no fractions. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface KeyEntry extends JsonObject {
  keytype: string;
  scheme: string;
  keyval: { public: string };
}

/** A signing key of a test repository. */
export interface TufKey {
  readonly keyId: string;
  readonly entry: KeyEntry;
  /** Hexadecimal. */
  sign(bytes: Uint8Array): string;
}

export type KeyKind = "ed25519" | "ecdsa" | "rsa";

export function makeTufKey(kind: KeyKind = "ed25519", extra: JsonObject = {}): TufKey {
  switch (kind) {
    case "ed25519": {
      const { publicKey, privateKey } = generateKeyPairSync("ed25519");
      const hex = publicKey.export({ format: "der", type: "spki" }).subarray(-32).toString("hex");
      const entry = { keytype: "ed25519", scheme: "ed25519", keyval: { public: hex }, ...extra };
      return keyOf(entry, (bytes) => signBytes(null, bytes, privateKey));
    }
    case "ecdsa": {
      const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
      const entry = { keytype: "ecdsa", scheme: "ecdsa-sha2-nistp256", keyval: pem(publicKey), ...extra };
      return keyOf(entry, (bytes) => signBytes("sha256", bytes, privateKey));
    }
    case "rsa": {
      const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
      const entry = { keytype: "rsa", scheme: "rsassa-pss-sha256", keyval: pem(publicKey), ...extra };
      const padding = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
      return keyOf(entry, (bytes) => signBytes("sha256", bytes, { key: privateKey, ...padding }));
    }
  }
}

/** The same key under another id, as somebody would list it who wants it to count twice. */
export function aliasOf(key: TufKey, keyId: string): TufKey {
  return { ...key, keyId };
}

function keyOf(entry: KeyEntry, sign: (bytes: Uint8Array) => Buffer): TufKey {
  const keyId = createHash("sha256").update(canonicalJson(entry)).digest("hex");
  return { keyId, entry, sign: (bytes) => sign(bytes).toString("hex") };
}

function pem(publicKey: KeyObject): { public: string } {
  return { public: publicKey.export({ format: "pem", type: "spki" }).toString() };
}

/** OLPC canonical JSON, which TUF signs (section 4.1): sorted keys, no spaces, only quote and backslash escaped. */
export function canonicalJson(value: Json): string {
  if (value === null || typeof value === "boolean" || typeof value === "number") return JSON.stringify(value);
  if (typeof value === "string") return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const entries = Object.keys(value)
    .sort()
    .map((key) => `${canonicalJson(key)}:${canonicalJson(value[key]!)}`);
  return `{${entries.join(",")}}`;
}
