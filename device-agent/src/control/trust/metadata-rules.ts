import { FieldloopError, LIMITS, type TrustRole } from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS } from "../../limits.js";

/**
 * What this device asks of metadata beyond what tuf-js 5.0.1 checks. That takes an expiry that is no date for one that never comes, any
 * number for a version, one public key under two ids for two keys, and a target without a hash or with a broken one as it comes. The
 * signatures over such metadata may well be good: these rules bound what a careless or half-compromised signer can do.
 */
const versionNumber = z.int().min(1).max(AGENT_LIMITS.trustVersionMax);
/** TUF section 4.2.1: UTC, whole seconds. */
const expiry = z
  .string()
  .regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/)
  .refine((text) => !Number.isNaN(Date.parse(text)));
const hexadecimal = z.string().regex(/^[0-9a-f]+$/);

const keys = z.record(z.string(), z.looseObject({ keyval: z.looseObject({ public: z.string() }) }));
const roleKeys = z.looseObject({
  keyids: z.array(z.string()).max(LIMITS.trustKeysPerRoleMax),
  threshold: z.int().min(1),
});
type Keys = z.output<typeof keys>;

const metaFile = z.looseObject({
  version: versionNumber,
  length: z.int().min(1).optional(),
  hashes: z.record(z.string(), hexadecimal).optional(),
});

const common = { version: versionNumber, expires: expiry };

const root = z
  .looseObject({ ...common, keys, roles: z.record(z.string(), roleKeys) })
  .refine(({ keys: known, roles }) => Object.values(roles).every((role) => areDistinct(role.keyids, known)), {
    message: "one public key under two key ids of a role",
  });

const metaOf = (file: string) =>
  z.record(z.string(), metaFile).refine((meta) => Object.hasOwn(meta, file), {
    message: `it does not name ${file}`,
  });
const timestamp = z.looseObject({ ...common, meta: metaOf("snapshot.json") });
const snapshot = z.looseObject({ ...common, meta: metaOf("targets.json") });

const target = z.looseObject({
  length: z.int().min(0),
  hashes: z
    .record(z.string(), hexadecimal)
    .refine((hashes) => "sha256" in hashes || "sha512" in hashes, { message: "neither SHA-256 nor SHA-512" }),
});

const roleName = z
  .string()
  .min(1)
  .refine((name) => !(name in Object.prototype), { message: "a name that no role may have" })
  .refine((name) => encodeURIComponent(name).length + ".json".length <= AGENT_LIMITS.trustFileNameMax, {
    message: "a name that is too long",
  });
const delegations = z
  .looseObject({ keys, roles: z.array(z.looseObject({ ...roleKeys.shape, name: roleName })).optional() })
  .refine(({ roles = [] }) => new Set(roles.map(({ name }) => name)).size === roles.length, {
    message: "two delegations to one role",
  })
  .refine(({ keys: known, roles = [] }) => roles.every((role) => areDistinct(role.keyids, known)), {
    message: "one public key under two key ids of a role",
  });
const targets = z.looseObject({
  ...common,
  targets: z.record(z.string(), target),
  delegations: delegations.optional(),
});

const SCHEMAS: Readonly<Record<TrustRole, z.ZodType>> = { root, timestamp, snapshot, targets };

/**
 * Checks metadata of any origin, before signatures: cheap, and free of effects.
 * @throws FieldloopError `trust_metadata_malformed`
 */
export function checkMetadata(kind: TrustRole, name: string, bytes: Uint8Array): void {
  const parsed = z.looseObject({ signed: SCHEMAS[kind] }).safeParse(parseJson(name, bytes));
  if (parsed.success) return;
  const issue = parsed.error.issues[0];
  throw malformed(name, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "unreadable"}`);
}

function areDistinct(keyIds: readonly string[], known: Keys): boolean {
  const publicKeys = keyIds.flatMap((keyId) => {
    const key = Object.hasOwn(known, keyId) ? known[keyId] : undefined;
    return key ? [key.keyval.public.trim()] : [];
  });
  return new Set(publicKeys).size === publicKeys.length;
}

function parseJson(name: string, bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed(name, "not JSON in UTF-8", cause);
  }
}

export function malformed(name: string, what: string, cause?: unknown): FieldloopError {
  return new FieldloopError("trust_metadata_malformed", `Read "${name}" metadata: ${what}`, { cause });
}
