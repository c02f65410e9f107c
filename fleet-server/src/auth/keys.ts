import { createPrivateKey, createPublicKey } from "node:crypto";

/** RFC 8410: the DER prefix of an Ed25519 private key that is followed by its 32 bytes of seed. */
export const ED25519_PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/** The public half of an Ed25519 seed (RFC 8032), 32 bytes. */
export function ed25519(seed: Uint8Array): Uint8Array {
  const privateKey = createPrivateKey({
    key: Buffer.concat([ED25519_PKCS8_PREFIX, seed]),
    format: "der",
    type: "pkcs8",
  });
  const jwk = createPublicKey(privateKey).export({ format: "jwk" });
  return Uint8Array.from(Buffer.from(jwk.x!, "base64url"));
}
