import { sha256 } from "@noble/hashes/sha2.js";
import { z } from "zod";
import { decodeCbor, encodeCbor, type CborValue } from "./cbor.js";
import { ed25519 } from "./ed25519.js";
import { FieldloopError } from "./errors.js";

/**
 * Signed statements. Parties: the fleet server holds an Ed25519 key (RFC 8032); each device got the public half when it
 * enrolled. What is signed is `type || 0x00 || payload` bytes as sent, so nothing has to be canonicalized, and a signature
 * over one type of statement is worthless for another (the idea of DSSE's pre-authentication encoding). Threats met here:
 * a broker or artifact store that forges, alters or swaps a statement. A replayed older statement is the reader's business
 * (revision numbers); a stolen server key is not met.
 */
const envelopeSchema = z.object({
  type: z.string().min(1).max(64),
  payload: z.instanceof(Uint8Array),
  keyId: z.string().regex(/^[0-9a-f]{16}$/),
  signature: z.instanceof(Uint8Array).refine((bytes) => bytes.length === 64),
});
export type Envelope = z.output<typeof envelopeSchema>;

export interface PublicKey {
  readonly keyId: string;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

export interface SigningKey extends PublicKey {
  /** 32 bytes of seed. */
  readonly secretKey: Uint8Array;
}

export function createSigningKey(randomBytes: (length: number) => Uint8Array): SigningKey {
  const secretKey = randomBytes(32);
  const publicKey = ed25519.publicKeyOf(secretKey);
  return { keyId: keyIdOf(publicKey), publicKey, secretKey };
}

/** The first 8 bytes of SHA-256 of the public key, in hexadecimal. */
export function keyIdOf(publicKey: Uint8Array): string {
  return toHex(sha256(publicKey).subarray(0, 8));
}

/** Which key an envelope says that it is signed with; proves nothing. @throws FieldloopError `cbor_*`, `message_schema` */
export function signerOf(envelopeBytes: Uint8Array): string {
  return parseEnvelope(envelopeBytes).keyId;
}

export function sign(type: string, payload: Uint8Array, key: SigningKey): Uint8Array {
  const signature = ed25519.sign(signedBytes(type, payload), key.secretKey);
  return encodeCbor({ type, payload, keyId: key.keyId, signature });
}

/**
 * @returns the payload of a statement of `type` that one of `trusted` signed
 * @throws FieldloopError `package_signature_unknown_key` or `package_signature_invalid`; a `cbor_*` code or `message_schema` for garbage
 */
export function verify(type: string, envelopeBytes: Uint8Array, trusted: readonly PublicKey[]): Uint8Array {
  const envelope = parseEnvelope(envelopeBytes);
  const key = trusted.find((candidate) => candidate.keyId === envelope.keyId);
  if (!key) {
    throw new FieldloopError(
      "package_signature_unknown_key",
      `Verify signature: key "${envelope.keyId}" is not trusted`,
    );
  }
  if (envelope.type !== type || !isValid(envelope, key)) {
    throw new FieldloopError(
      "package_signature_invalid",
      `Verify signature: it does not fit a "${type}" by "${key.keyId}"`,
    );
  }
  return envelope.payload;
}

function parseEnvelope(envelopeBytes: Uint8Array): Envelope {
  const parsed = envelopeSchema.safeParse(decodeCbor(envelopeBytes));
  if (!parsed.success) throw new FieldloopError("message_schema", "Verify signature: not a signed envelope");
  return parsed.data;
}

function isValid(envelope: Envelope, key: PublicKey): boolean {
  try {
    return ed25519.verify(envelope.signature, signedBytes(envelope.type, envelope.payload), key.publicKey);
  } catch {
    // A malformed point or scalar is no signature.
    return false;
  }
}

/** What is signed of a statement. */
export function signedBytes(type: string, payload: Uint8Array): Uint8Array {
  const header = encodeCbor(type satisfies CborValue);
  const bytes = new Uint8Array(header.length + 1 + payload.length);
  bytes.set(header);
  bytes.set(payload, header.length + 1);
  return bytes;
}

/** SHA-256 as lower-case hexadecimal. */
export function sha256Hex(bytes: Uint8Array): string {
  return toHex(sha256(bytes));
}

export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** @throws FieldloopError `invalid_argument` where `text` is not an even number of hexadecimal digits */
export function fromHex(text: string): Uint8Array {
  if (!/^(?:[0-9a-fA-F]{2})*$/.test(text))
    throw new FieldloopError("invalid_argument", "Read hexadecimal: other characters in it");
  return Uint8Array.from({ length: text.length / 2 }, (_, index) =>
    Number.parseInt(text.slice(index * 2, index * 2 + 2), 16),
  );
}
