import { ed25519 as portable } from "@noble/curves/ed25519.js";

/** Ed25519 (RFC 8032): keys of 32 bytes, the secret one a seed; signatures of 64. */
export interface Ed25519 {
  publicKeyOf(secretKey: Uint8Array): Uint8Array;
  sign(bytes: Uint8Array, secretKey: Uint8Array): Uint8Array;
  /** False, or an error, for what is no signature at all. */
  verify(signature: Uint8Array, bytes: Uint8Array, publicKey: Uint8Array): boolean;
}

/** In any JavaScript. */
export const portableEd25519: Ed25519 = {
  publicKeyOf: (secretKey) => portable.getPublicKey(secretKey),
  sign: (bytes, secretKey) => portable.sign(bytes, secretKey),
  verify: (signature, bytes, publicKey) => portable.verify(signature, bytes, publicKey, { zip215: false }),
};

/** What stands before the key in its DER form (RFC 8410 sections 4 and 7). */
const SPKI_HEAD = Uint8Array.from([0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);
const PKCS8_HEAD = Uint8Array.from([0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20]);

const nodeCrypto = globalThis.process?.getBuiltinModule?.("node:crypto");

/** By Node's own library. The first verification of the portable one makes a table of points, which takes a small device a good while. */
function nodeEd25519({
  createPrivateKey,
  createPublicKey,
  sign,
  verify,
}: NonNullable<typeof nodeCrypto>): Ed25519 {
  const secret = (key: Uint8Array): ReturnType<typeof createPrivateKey> =>
    createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, key]), format: "der", type: "pkcs8" });
  return {
    publicKeyOf: (secretKey) => {
      const der = createPublicKey(secret(secretKey)).export({ format: "der", type: "spki" });
      return new Uint8Array(der.subarray(SPKI_HEAD.length));
    },
    sign: (bytes, secretKey) => new Uint8Array(sign(null, bytes, secret(secretKey))),
    verify: (signature, bytes, publicKey) => {
      const key = Buffer.concat([SPKI_HEAD, publicKey]);
      return verify(null, bytes, createPublicKey({ key, format: "der", type: "spki" }), signature);
    },
  };
}

export const ed25519: Ed25519 = nodeCrypto ? nodeEd25519(nodeCrypto) : portableEd25519;
