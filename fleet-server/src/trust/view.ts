import { TRUST_ROLES, type DirectorTarget, type SigningRequest, type TrustView } from "@fieldloop/protocol";
import type { StoredSignature } from "../store/trust.js";
import { describeRoles } from "./describe.js";
import type { DirectorKeys } from "./director.js";
import { expiresTime, keyIdsOf, rolesOf, type Head, type RoleKeys, type RootRoles } from "./documents.js";
import { isRenewalDue } from "./expiry.js";
import { trustKeyId } from "./keys.js";
import { planPublication } from "./publication.js";
import { draftOf } from "./request.js";
import type { Signer } from "./signer.js";

export interface ViewParts {
  readonly head: Head;
  readonly staged: RootRoles | undefined;
  readonly request: SigningRequest | undefined;
  readonly collected: readonly StoredSignature[];
  readonly signers: ReadonlyMap<string, Signer>;
  readonly problems: readonly string[];
  readonly director: DirectorKeys;
  readonly directorPublished: DirectorTarget;
  readonly awaiting: TrustView["awaiting"];
  readonly now: number;
}

/** Enough keys of the role are among the signers. */
export function isOnline(role: RoleKeys, signers: ReadonlyMap<string, Signer>): boolean {
  return keyIdsOf(role).filter((keyId) => signers.has(keyId)).length >= role.threshold;
}

/** The state of the repository for people and programs. */
export async function viewTrust(parts: ViewParts): Promise<TrustView> {
  const { head, staged, director, signers } = parts;
  const inForce = rolesOf(head.root.metadata.signed);
  return {
    roles: TRUST_ROLES.map((role) => {
      const { keys, threshold } = inForce[role];
      const { signed } = head[role].metadata;
      return {
        role,
        version: signed.version,
        expires: expiresTime(signed),
        threshold,
        keys: keys.map((key) => {
          const keyId = trustKeyId(key);
          return { keyId, scheme: key.scheme, here: signers.has(keyId) };
        }),
        online: isOnline(inForce[role], signers),
      };
    }),
    director: {
      published: [...parts.directorPublished.keys],
      keyId: director.current.keyId,
      next: director.next?.keyId ?? null,
    },
    staged: staged ? describeRoles(inForce, staged) : [],
    request: parts.request ? await viewRequest(parts, parts.request) : null,
    awaiting: parts.awaiting,
    warnings: warningsOf(parts, inForce),
  };
}

async function viewRequest(parts: ViewParts, request: SigningRequest): Promise<TrustView["request"]> {
  const { head, signers, now, collected } = parts;
  const plan = await planPublication(head, draftOf(request), { signers, now, collected });
  return {
    request: request.request,
    created: request.created,
    createdBy: request.createdBy,
    documents: request.documents.map(({ role, version }) => ({ role, version })),
    missing: plan.complete ? [] : plan.missing.map((line) => ({ ...line })),
  };
}

function warningsOf(parts: ViewParts, inForce: RootRoles): TrustView["warnings"] {
  const { head, signers, now, director, directorPublished } = parts;
  const warnings: TrustView["warnings"] = parts.problems.map((title) => ({
    code: "trust_key_unavailable",
    title,
  }));
  for (const role of TRUST_ROLES) {
    const { signed } = head[role].metadata;
    if (expiresTime(signed) <= now) {
      warnings.push({
        code: "trust_metadata_expired",
        title: `${role} ${signed.version} expired at ${signed.expires}: devices take nothing new until it is renewed`,
      });
    } else if ((role === "snapshot" || role === "timestamp") && !isOnline(inForce[role], signers)) {
      warnings.push({
        code: "trust_key_unavailable",
        title: `The keys of ${role} are not here, nothing new can be published: "fieldloop keys rotate ${role}"`,
      });
    } else if (isRenewalDue(role, expiresTime(signed), now) && !isOnline(inForce[role], signers)) {
      warnings.push({
        code: "trust_renewal_due",
        title: `${role} ${signed.version} expires at ${signed.expires} and its keys are not here: run "fieldloop keys request"`,
      });
    }
  }
  if (parts.awaiting.length > 0 && !isOnline(inForce.targets, signers)) {
    warnings.push({
      code: "version_awaiting_signature",
      title: `${parts.awaiting.length} published versions wait for the targets keys`,
    });
  }
  if (!directorPublished.keys.some(({ keyId }) => keyId === director.current.keyId)) {
    warnings.push({
      code: "desired_signature_invalid",
      title: `The director key "${director.current.keyId}" is not among the published ones: devices refuse desired states`,
    });
  }
  return warnings;
}
