import { FieldloopError, type TrustKey } from "@fieldloop/protocol";
import { isSignature } from "./keys.js";

/**
 * Signs with one key, wherever that is: a file, a file behind a passphrase, or a program that asks an HSM or KMS. The key itself is
 * never handed out.
 */
export interface Signer {
  readonly keyId: string;
  readonly key: TrustKey;
  /** @returns the signature over `bytes` in hexadecimal. @throws FieldloopError `trust_key_unavailable` */
  sign(bytes: Uint8Array): Promise<string>;
}

/** Signs and checks: a wrong or worn-out key is found here and not by devices. @throws FieldloopError `trust_key_unavailable` */
export async function signChecked(signer: Signer, bytes: Uint8Array): Promise<string> {
  const signature = await signer.sign(bytes);
  if (isSignature(signer.key, bytes, signature)) return signature;
  throw new FieldloopError(
    "trust_key_unavailable",
    `Sign with "${signer.keyId}": what came back is not a signature of that key`,
  );
}
