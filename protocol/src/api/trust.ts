import { z } from "zod";
import { LIMITS } from "../limits.js";
import {
  countSchema,
  modelNameSchema,
  sha256Schema,
  textSchema,
  timeSchema,
  versionSchema,
} from "../names.js";
import { directorKeySchema, trustRoleSchema } from "../trust.js";

/** Id of a TUF key: SHA-256 of the canonical form of the public key (TUF section 4.2). */
export const trustKeyIdSchema = sha256Schema;

/** A public key as it stands in root metadata; `public` is hexadecimal for Ed25519, PEM for the others. */
export const trustKeySchema = z.discriminatedUnion("keytype", [
  z.object({
    keytype: z.literal("ed25519"),
    scheme: z.literal("ed25519"),
    keyval: z.object({ public: z.string().regex(/^[0-9a-f]{64}$/) }),
  }),
  z.object({
    keytype: z.literal("ecdsa"),
    scheme: z.literal("ecdsa-sha2-nistp256"),
    keyval: z.object({ public: z.string().max(LIMITS.trustKeyTextMax) }),
  }),
  z.object({
    keytype: z.literal("rsa"),
    scheme: z.literal("rsassa-pss-sha256"),
    keyval: z.object({ public: z.string().max(LIMITS.trustKeyTextMax) }),
  }),
]);
export type TrustKey = z.output<typeof trustKeySchema>;

/** `fieldloop keys init` writes one beside each private key; `fieldloop keys add` reads it. */
export const publicKeyFileSchema = z.object({
  format: z.literal("fieldloop-public-key-1"),
  keyId: trustKeyIdSchema,
  key: trustKeySchema,
});
export type PublicKeyFile = z.output<typeof publicKeyFileSchema>;

/** Hexadecimal; RSA signatures are the longest. */
export const signatureTextSchema = z
  .string()
  .regex(/^(?:[0-9a-f]{2})+$/)
  .max(LIMITS.signatureTextMax);

/** A document that wants signatures: its `signed` part as it will stand in the metadata file. */
const requestedDocumentSchema = z.object({
  role: z.enum(["root", "targets"]),
  version: z.int().min(1),
  /** SHA-256 of the canonical form of `signed` (TUF section 4.2): what is signed. */
  sha256: sha256Schema,
  signed: z.record(z.string(), z.unknown()),
  /** Every one of these must be met; for a root: by the keys of the old root and by its own. */
  needs: z
    .array(
      z.object({
        of: z.enum(["root in force", "new root", "targets"]),
        keyIds: z.array(trustKeyIdSchema).max(LIMITS.trustKeysPerRoleMax),
        threshold: z.int().min(1),
        /** Whose signature is there already. */
        signedBy: z.array(trustKeyIdSchema),
      }),
    )
    .min(1),
});
export type RequestedDocument = z.output<typeof requestedDocumentSchema>;

/** A signing request: a file that goes to the offline machine. Everything that decides is in it; nothing in it is secret. */
export const signingRequestSchema = z.object({
  format: z.literal("fieldloop-signing-request-1"),
  request: z.string().regex(/^req_[0-9a-f]{16}$/),
  created: timeSchema,
  createdBy: z.string(),
  documents: z.array(requestedDocumentSchema).min(1).max(2),
  /** The `signed` parts that are in force, so that an offline machine can show what would change. */
  current: z.object({
    root: z.record(z.string(), z.unknown()),
    targets: z.record(z.string(), z.unknown()),
  }),
});
export type SigningRequest = z.output<typeof signingRequestSchema>;

/** What comes back from the offline machine. */
export const signaturesFileSchema = z.object({
  format: z.literal("fieldloop-signatures-1"),
  request: signingRequestSchema.shape.request,
  signatures: z
    .array(
      z.object({
        role: requestedDocumentSchema.shape.role,
        sha256: sha256Schema,
        keyId: trustKeyIdSchema,
        signature: signatureTextSchema,
      }),
    )
    .min(1)
    .max(4 * LIMITS.trustKeysPerRoleMax),
});
export type SignaturesFile = z.output<typeof signaturesFileSchema>;

const roleKeysSchema = z.array(z.object({ keyId: trustKeyIdSchema, scheme: z.string(), here: z.boolean() }));
export const trustRoleViewSchema = z.object({
  role: trustRoleSchema,
  version: z.int().min(1),
  expires: timeSchema,
  threshold: z.int().min(1),
  /** `here`: this server can sign with it. */
  keys: roleKeysSchema,
  /** Enough keys are here to sign without anybody else. */
  online: z.boolean(),
});
export type TrustRoleView = z.output<typeof trustRoleViewSchema>;

const missingSchema = z.object({
  role: z.enum(["root", "targets"]),
  of: z.enum(["root in force", "new root", "targets"]),
  have: countSchema,
  threshold: countSchema,
});

/** State of the trust repository. */
export const trustViewSchema = z.object({
  roles: z.array(trustRoleViewSchema),
  director: z.object({
    /** As devices read it. */
    published: z.array(directorKeySchema),
    /** The key that signs now. */
    keyId: z.string(),
    /** Takes over once it is published; null where none waits. */
    next: z.string().nullable(),
  }),
  /** Changes of keys and thresholds that are not in force yet, in words. */
  staged: z.array(z.string()),
  request: z
    .object({
      request: z.string(),
      created: timeSchema,
      createdBy: z.string(),
      documents: z.array(z.object({ role: z.enum(["root", "targets"]), version: z.int() })),
      missing: z.array(missingSchema),
    })
    .nullable(),
  /** Published versions that no device can install yet. */
  awaiting: z.array(z.object({ model: modelNameSchema, version: versionSchema })),
  warnings: z.array(z.object({ code: z.string(), title: z.string() })),
});
export type TrustView = z.output<typeof trustViewSchema>;

/** Changes of the keys of one role: all of them come into force in one root, or wait for one. */
export const changeKeysRequestSchema = z.object({
  role: trustRoleSchema,
  add: z.array(trustKeySchema).max(LIMITS.trustKeysPerRoleMax).default([]),
  revoke: z.array(trustKeyIdSchema).max(LIMITS.trustKeysPerRoleMax).default([]),
  /** Every key that the role has now is revoked. */
  revokeAll: z.boolean().default(false),
  /** The server makes this many new keys and keeps them in its data folder. */
  create: z.int().min(0).max(LIMITS.trustKeysPerRoleMax).default(0),
  threshold: z.int().min(1).max(LIMITS.trustKeysPerRoleMax).optional(),
});
export type ChangeKeysRequest = z.input<typeof changeKeysRequestSchema>;

/** What became of a change: in force, or waiting for signatures. */
export const trustOutcomeSchema = z.object({
  state: z.enum(["in_force", "awaiting_signature"]),
  detail: textSchema,
  view: trustViewSchema,
});
export type TrustOutcome = z.output<typeof trustOutcomeSchema>;
