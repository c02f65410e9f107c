import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { isDeviceId } from "@fieldloop/protocol";

/**
 * Secrets of this server are random, 256 bits, and only their SHA-256 is stored: nobody can guess them, so no slow hash is needed,
 * and who reads the database learns none. API tokens begin with `flt_`, enrolment tokens with `fle_`, sessions with `fls_`, device
 * credentials are `fld.{device}.{secret}`: a scanner that finds one in a log or a repository knows what it is.
 */
export type SecretKind = "flt" | "fle" | "fls";

export function newSecret(kind: SecretKind): string {
  return `${kind}_${randomBytes(32).toString("base64url")}`;
}

export function newCredential(device: string): string {
  return `fld.${device}.${randomBytes(32).toString("base64url")}`;
}

export function hashSecret(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

/** Compares hashes in a time that does not tell where they differ. */
export function sameHash(a: string, b: string): boolean {
  const left = Buffer.from(a, "hex");
  const right = Buffer.from(b, "hex");
  return left.length === right.length && timingSafeEqual(left, right);
}

/** The device that a credential claims; its secret holds no dot. */
export function deviceOfCredential(credential: string): string | undefined {
  if (!credential.startsWith("fld.")) return undefined;
  const end = credential.lastIndexOf(".");
  const device = credential.slice(4, end);
  return end > 4 && isDeviceId(device) ? device : undefined;
}
