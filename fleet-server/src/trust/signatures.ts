import { Signature, type Metadata } from "@tufjs/models";
import type { RoleKeys, SignedPart } from "./documents.js";
import { canonicalBytes, isSignature, trustKeyId } from "./keys.js";
import { signChecked, type Signer } from "./signer.js";

/** Whose valid signatures a document has among the keys of a role: each key counts once (TUF section 5.3). */
export function signersOf(metadata: Metadata<SignedPart>, role: RoleKeys): string[] {
  const bytes = canonicalBytes(metadata.signed.toJSON());
  return role.keys.flatMap((key) => {
    const keyId = trustKeyId(key);
    const signature = metadata.signatures[keyId];
    return signature && isSignature(key, bytes, signature.sig) ? [keyId] : [];
  });
}

export function isSatisfied(metadata: Metadata<SignedPart>, role: RoleKeys): boolean {
  return signersOf(metadata, role).length >= role.threshold;
}

/**
 * Adds the signature of every key that is here and belongs to one of the roles.
 * @returns why keys that are here could not sign
 */
export async function addSignatures(
  metadata: Metadata<SignedPart>,
  roles: readonly RoleKeys[],
  signers: ReadonlyMap<string, Signer>,
): Promise<unknown[]> {
  const bytes = canonicalBytes(metadata.signed.toJSON());
  const failures: unknown[] = [];
  for (const keyId of new Set(roles.flatMap(({ keys }) => keys.map(trustKeyId)))) {
    const signer = signers.get(keyId);
    if (!signer || metadata.signatures[keyId]) continue;
    try {
      metadata.signatures[keyId] = new Signature({ keyID: keyId, sig: await signChecked(signer, bytes) });
    } catch (error) {
      failures.push(error);
    }
  }
  return failures;
}
