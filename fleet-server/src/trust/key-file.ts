import { createPrivateKey, sign } from "node:crypto";
import {
  FieldloopError,
  fromHex,
  toHex,
  trustKeyIdSchema,
  trustKeySchema,
  type PublicKeyFile,
  type TrustKey,
} from "@fieldloop/protocol";
import { z } from "zod";
import { ED25519_PKCS8_PREFIX, ed25519 } from "../auth/keys.js";
import { SERVER_LIMITS } from "../limits.js";
import { CommandSigner, SIGNATURE_ENCODINGS } from "./command-signer.js";
import { canonicalBytes, isSignature, trustKeyId } from "./keys.js";
import { seal, sealedSchema, unseal } from "./passphrase.js";
import type { Signer } from "./signer.js";

/** A private key, or how to reach one, as a file of mode 600. */
export const keyFileSchema = z.object({
  format: z.literal("fieldloop-key-1"),
  keyId: trustKeyIdSchema,
  key: trustKeySchema,
  /** Made by the server for itself: it may be deleted once no root names it. */
  managed: z.boolean().default(false),
  secret: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("plain"), seed: z.string().regex(/^[0-9a-f]{64}$/) }),
    sealedSchema,
    z.object({
      kind: z.literal("command"),
      command: z.array(z.string().min(1)).min(1).max(64),
      encoding: z.enum(SIGNATURE_ENCODINGS).default("raw"),
      timeoutMs: z.int().min(100).max(600_000).optional(),
    }),
  ]),
});
export type KeyFile = z.output<typeof keyFileSchema>;

export interface NewKeyOptions {
  readonly randomBytes: (length: number) => Uint8Array;
  readonly passphrase?: string;
  readonly managed?: boolean;
  readonly cost?: number;
}

/** A new Ed25519 key. */
export async function createKeyFile(options: NewKeyOptions): Promise<KeyFile> {
  const seed = options.randomBytes(32);
  const key: TrustKey = { keytype: "ed25519", scheme: "ed25519", keyval: { public: toHex(ed25519(seed)) } };
  const keyId = trustKeyId(key);
  const { randomBytes, passphrase, managed = false, cost = SERVER_LIMITS.trustPassphraseCost } = options;
  const secret =
    passphrase === undefined
      ? { kind: "plain" as const, seed: toHex(seed) }
      : await seal(seed, passphrase, keyId, { randomBytes, cost });
  return { format: "fieldloop-key-1", keyId, key, managed, secret };
}

/** A key that a program signs with. */
export function commandKeyFile(
  key: TrustKey,
  secret: Extract<KeyFile["secret"], { kind: "command" }>,
): KeyFile {
  return { format: "fieldloop-key-1", keyId: trustKeyId(key), key, managed: false, secret };
}

export function publicKeyFile({ keyId, key }: KeyFile): PublicKeyFile {
  return { format: "fieldloop-public-key-1", keyId, key };
}

/** @throws FieldloopError `trust_key_unavailable` for text that is no key file */
export function parseKeyFile(text: string, name: string): KeyFile {
  let json: unknown;
  try {
    json = text.length > SERVER_LIMITS.trustKeyFileBytesMax ? undefined : JSON.parse(text);
  } catch (cause) {
    throw new FieldloopError("trust_key_unavailable", `Read key: "${name}" is not JSON`, { cause });
  }
  const parsed = keyFileSchema.safeParse(json);
  if (!parsed.success) {
    throw new FieldloopError("trust_key_unavailable", `Read key: "${name}" is not a private key file`);
  }
  if (trustKeyId(parsed.data.key) !== parsed.data.keyId) {
    throw new FieldloopError("trust_key_unavailable", `Read key: the id in "${name}" is not that of its key`);
  }
  return parsed.data;
}

export function needsPassphrase({ secret }: KeyFile): boolean {
  return secret.kind === "passphrase";
}

/** @throws FieldloopError `trust_key_unavailable` without the passphrase, or where public and private half do not belong together */
export async function openKeyFile(file: KeyFile, passphrase: string | undefined): Promise<Signer> {
  const { keyId, key, secret } = file;
  switch (secret.kind) {
    case "command":
      return new CommandSigner({ keyId, key, ...secret });
    case "plain":
      return seedSigner(file, fromHex(secret.seed));
    case "passphrase":
      if (passphrase === undefined) {
        throw new FieldloopError("trust_key_unavailable", `Open key "${keyId}": it needs its passphrase`);
      }
      return seedSigner(file, await unseal(secret, passphrase, keyId));
  }
}

function seedSigner({ keyId, key }: KeyFile, seed: Uint8Array): Signer {
  const privateKey = createPrivateKey({
    key: Buffer.concat([ED25519_PKCS8_PREFIX, seed]),
    format: "der",
    type: "pkcs8",
  });
  const signBytes = (bytes: Uint8Array): string => sign(undefined, bytes, privateKey).toString("hex");
  const probe = canonicalBytes({ keyId });
  if (!isSignature(key, probe, signBytes(probe))) {
    throw new FieldloopError(
      "trust_key_unavailable",
      `Open key "${keyId}": its two halves are of different keys`,
    );
  }
  return { keyId, key, sign: async (bytes) => signBytes(bytes) };
}
