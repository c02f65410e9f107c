import { constants, createPublicKey, verify, type KeyObject } from "node:crypto";
import {
  FieldloopError,
  publicKeyFileSchema,
  sha256Hex,
  trustKeySchema,
  type TrustKey,
} from "@fieldloop/protocol";
import { canonicalize } from "@tufjs/canonical-json";
import { Key } from "@tufjs/models";

/** RFC 8410: the DER prefix of an Ed25519 public key that is followed by its 32 bytes. */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** The bytes that are hashed and signed: canonical JSON (TUF section 4.2). */
export function canonicalBytes(value: object): Uint8Array {
  return Buffer.from(canonicalize(value));
}

export function trustKeyId(key: TrustKey): string {
  return sha256Hex(canonicalBytes(key));
}

export function toTufKey(key: TrustKey): Key {
  return new Key({
    keyID: trustKeyId(key),
    keyType: key.keytype,
    scheme: key.scheme,
    keyVal: { public: key.keyval.public },
  });
}

/**
 * Whether `signature` (hexadecimal) is the key's over `bytes`; does not throw. Ed25519 hashes by itself (RFC 8032), ECDSA signatures are
 * DER (RFC 3279 section 2.2.3), RSA ones PSS (RFC 8017 section 8.1).
 */
export function isSignature(key: TrustKey, bytes: Uint8Array, signature: string): boolean {
  try {
    const digest = key.keytype === "ed25519" ? undefined : "sha256";
    const publicKey = publicKeyObject(key);
    const how =
      key.keytype === "rsa" ? { key: publicKey, padding: constants.RSA_PKCS1_PSS_PADDING } : publicKey;
    return verify(digest, bytes, how, Buffer.from(signature, "hex"));
  } catch {
    // A malformed signature is none.
    return false;
  }
}

/**
 * A public key from what people have: the file that `fieldloop keys init` wrote, or PEM (`-----BEGIN PUBLIC KEY-----`) as an HSM
 * or KMS exports it: Ed25519, ECDSA on P-256, or RSA of at least 2,048 bits.
 * @throws FieldloopError `invalid_argument`
 */
export function readTrustKey(text: string, name: string): TrustKey {
  const key = text.includes("-----BEGIN PUBLIC KEY-----") ? fromPem(text, name) : fromFile(text, name);
  try {
    publicKeyObject(key);
  } catch (cause) {
    throw new FieldloopError("invalid_argument", `Read public key: "${name}" holds no usable key`, { cause });
  }
  return key;
}

function fromFile(text: string, name: string): TrustKey {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FieldloopError(
      "invalid_argument",
      `Read public key: "${name}" is neither PEM nor a file of "fieldloop keys init"`,
      { cause },
    );
  }
  const parsed = publicKeyFileSchema.safeParse(json);
  if (!parsed.success) {
    throw new FieldloopError(
      "invalid_argument",
      `Read public key: "${name}" is not a public key file (private ones never leave their machine)`,
    );
  }
  if (trustKeyId(parsed.data.key) !== parsed.data.keyId) {
    throw new FieldloopError(
      "invalid_argument",
      `Read public key: the id in "${name}" is not that of its key`,
    );
  }
  return parsed.data.key;
}

function fromPem(text: string, name: string): TrustKey {
  let key: KeyObject;
  try {
    key = createPublicKey(text);
  } catch (cause) {
    throw new FieldloopError("invalid_argument", `Read public key: "${name}" is not readable PEM`, { cause });
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  const pem = key.export({ format: "pem", type: "spki" }).toString();
  if (type === "ed25519") {
    const hex = key.export({ format: "der", type: "spki" }).subarray(SPKI_PREFIX.length).toString("hex");
    return { keytype: "ed25519", scheme: "ed25519", keyval: { public: hex } };
  }
  if (type === "ec" && details?.namedCurve === "prime256v1") {
    return trustKeySchema.parse({ keytype: "ecdsa", scheme: "ecdsa-sha2-nistp256", keyval: { public: pem } });
  }
  if (type === "rsa" && (details?.modulusLength ?? 0) >= 2_048) {
    return trustKeySchema.parse({ keytype: "rsa", scheme: "rsassa-pss-sha256", keyval: { public: pem } });
  }
  throw new FieldloopError(
    "invalid_argument",
    `Read public key: "${name}" is of the kind "${type}"; wanted Ed25519, ECDSA on P-256, or RSA of 2,048 bits or more`,
  );
}

function publicKeyObject(key: TrustKey): KeyObject {
  if (key.keytype !== "ed25519") return createPublicKey(key.keyval.public);
  const der = Buffer.concat([SPKI_PREFIX, Buffer.from(key.keyval.public, "hex")]);
  return createPublicKey({ key: der, format: "der", type: "spki" });
}
