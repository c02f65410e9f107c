import { createPrivateKey, sign } from "node:crypto";
import { encodeCbor, signedBytes, type SigningKey } from "@fieldloop/protocol";

/** RFC 8410: an Ed25519 private key in PKCS #8 is these bytes and the 32 bytes of its seed. */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/** Signs statements as `sign` of the protocol does, with the platform's Ed25519: a rollout signs a hundred a second. */
export function nativeSigner(key: SigningKey): (type: string, payload: Uint8Array) => Uint8Array {
  const der = Buffer.concat([PKCS8_PREFIX, key.secretKey]);
  const secret = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  return (type, payload) => {
    const signature = new Uint8Array(sign(null, signedBytes(type, payload), secret));
    return encodeCbor({ type, payload, keyId: key.keyId, signature });
  };
}
