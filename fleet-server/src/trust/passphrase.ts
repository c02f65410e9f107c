import { createCipheriv, createDecipheriv, scrypt } from "node:crypto";
import { FieldloopError, fromHex, toHex } from "@fieldloop/protocol";
import { z } from "zod";

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`));

/** A secret behind a passphrase: scrypt (RFC 7914) makes the key, AES-256-GCM (NIST SP 800-38D) closes and proves. */
export const sealedSchema = z.object({
  kind: z.literal("passphrase"),
  kdf: z.literal("scrypt"),
  /** Powers of two; a file may not ask for more memory than 1 GB. */
  cost: z
    .int()
    .min(2 ** 10)
    .max(2 ** 20)
    .refine((cost) => Number.isInteger(Math.log2(cost))),
  salt: hex(16),
  nonce: hex(12),
  tag: hex(16),
  sealed: hex(32),
});
export type Sealed = z.output<typeof sealedSchema>;

const BLOCK = 8;

/** @param secret 32 bytes. @param about bound to the sealed secret: it cannot be moved to another file */
export async function seal(
  secret: Uint8Array,
  passphrase: string,
  about: string,
  options: { readonly randomBytes: (length: number) => Uint8Array; readonly cost: number },
): Promise<Sealed> {
  const salt = options.randomBytes(16);
  const nonce = options.randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", await derive(passphrase, salt, options.cost), nonce);
  cipher.setAAD(Buffer.from(about));
  const sealed = Buffer.concat([cipher.update(secret), cipher.final()]);
  return {
    kind: "passphrase",
    kdf: "scrypt",
    cost: options.cost,
    salt: toHex(salt),
    nonce: toHex(nonce),
    tag: toHex(cipher.getAuthTag()),
    sealed: toHex(sealed),
  };
}

/** @throws FieldloopError `trust_key_unavailable` for another passphrase or a file that was changed */
export async function unseal(sealed: Sealed, passphrase: string, about: string): Promise<Uint8Array> {
  const key = await derive(passphrase, fromHex(sealed.salt), sealed.cost);
  const decipher = createDecipheriv("aes-256-gcm", key, fromHex(sealed.nonce));
  decipher.setAAD(Buffer.from(about));
  decipher.setAuthTag(fromHex(sealed.tag));
  try {
    return Buffer.concat([decipher.update(fromHex(sealed.sealed)), decipher.final()]);
  } catch (cause) {
    throw new FieldloopError(
      "trust_key_unavailable",
      `Open key "${about}": the passphrase is wrong, or the file was changed`,
      { cause },
    );
  }
}

function derive(passphrase: string, salt: Uint8Array, cost: number): Promise<Buffer> {
  const maxmem = 256 * BLOCK * cost;
  return new Promise((resolve, reject) => {
    scrypt(passphrase.normalize("NFKC"), salt, 32, { N: cost, r: BLOCK, p: 1, maxmem }, (error, key) =>
      error ? reject(error) : resolve(key),
    );
  });
}
