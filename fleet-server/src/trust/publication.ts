import { FieldloopError, type TrustRole } from "@fieldloop/protocol";
import { Metadata, Signature, Targets, type Root, type Snapshot, type Timestamp } from "@tufjs/models";
import type { StoredSignature } from "../store/trust.js";
import {
  buildSnapshot,
  buildTimestamp,
  expiresText,
  expiresTime,
  publishedForm,
  rolesOf,
  type Head,
  type Published,
  type RoleKeys,
  type RootRoles,
  type SignedPart,
} from "./documents.js";
import { expiryOf, isRenewalDue } from "./expiry.js";
import { addSignatures, isSatisfied, signersOf } from "./signatures.js";
import type { Signer } from "./signer.js";

/** New root and targets that want signatures; what is absent stays as it is. */
export interface Draft {
  readonly root?: Root;
  readonly targets?: Targets;
}

/** Metadata that belong together: all of them become visible at once, or none. */
export interface Publication {
  readonly root?: Published<Root>;
  readonly targets?: Published<Targets>;
  readonly snapshot?: Published<Snapshot>;
  readonly timestamp?: Published<Timestamp>;
}

/** Signatures that a draft lacks. */
export interface Missing {
  readonly role: "root" | "targets";
  readonly of: "root in force" | "new root" | "targets";
  readonly have: number;
  readonly threshold: number;
}

export type Plan =
  | { readonly complete: true; readonly publication: Publication }
  | { readonly complete: false; readonly missing: readonly Missing[]; readonly failures: readonly unknown[] };

export interface PlanOptions {
  readonly signers: ReadonlyMap<string, Signer>;
  /** Signatures that came from elsewhere; those that fit no document of the draft count nothing. */
  readonly collected?: readonly StoredSignature[];
  readonly now: number;
  /** Snapshot and timestamp are made anew though they are good still. */
  readonly renew?: ReadonlySet<TrustRole>;
}

/**
 * Signs a draft with the keys that are here and sees whether that is enough, by the rules of the client (TUF section 5.3): a root by
 * the threshold of the root before it and by its own, targets by the root that they will stand under. Root and targets are complete or not at all;
 * snapshot and timestamp follow from them.
 * @param head undefined for the first publication of all
 * @throws FieldloopError `trust_key_unavailable` where keys for snapshot or timestamp are not here
 */
export async function planPublication(
  head: Head | undefined,
  draft: Draft,
  options: PlanOptions,
): Promise<Plan> {
  const missing: Missing[] = [];
  const failures: unknown[] = [];
  const sign = async <Part extends Root | Targets>(
    part: Part,
    role: Missing["role"],
    needs: readonly { readonly of: Missing["of"]; readonly keys: RoleKeys }[],
  ): Promise<Published<Part>> => {
    const metadata = new Metadata<Part>(part, collectedFor(role, options.collected));
    failures.push(
      ...(await addSignatures(
        metadata,
        needs.map(({ keys }) => keys),
        options.signers,
      )),
    );
    for (const { of, keys } of needs) {
      const have = signersOf(metadata, keys).length;
      if (have < keys.threshold) missing.push({ role, of, have, threshold: keys.threshold });
    }
    return publishedForm(
      keepValid(
        metadata,
        needs.map(({ keys }) => keys),
      ),
    );
  };
  const root = draft.root && (await sign(draft.root, "root", rootNeeds(head, draft.root)));
  const inForce = rolesOf(root?.metadata.signed ?? head!.root.metadata.signed);
  const wanted = draft.targets ?? (head && signedAgain(head, inForce, options.now));
  const targets = wanted && (await sign(wanted, "targets", [{ of: "targets", keys: inForce.targets }]));
  if (missing.length > 0) return { complete: false, missing, failures };
  const publication = { ...(root ? { root } : {}), ...(targets ? { targets } : {}) };
  return { complete: true, publication: await followedUp(head, publication, inForce, options) };
}

/** Whose signatures a new root needs: of the root in force (none for the first one) and of itself. */
export function rootNeeds(
  head: Head | undefined,
  root: Root,
): { readonly of: "root in force" | "new root"; readonly keys: RoleKeys }[] {
  return [
    ...(head ? [{ of: "root in force" as const, keys: rolesOf(head.root.metadata.signed).root }] : []),
    { of: "new root" as const, keys: rolesOf(root).root },
  ];
}

/** Same targets, next version: the keys that signed them are not those of the new root. */
function signedAgain(head: Head, inForce: RootRoles, now: number): Targets | undefined {
  if (isSatisfied(head.targets.metadata, inForce.targets)) return undefined;
  const { targets, version, specVersion } = head.targets.metadata.signed;
  return new Targets({
    targets,
    version: version + 1,
    specVersion,
    expires: expiresText(expiryOf("targets", now)),
  });
}

/** Snapshot and timestamp, where what they name changed, their keys did, or their time comes. */
async function followedUp(
  head: Head | undefined,
  { root, targets }: Publication,
  inForce: RootRoles,
  options: PlanOptions,
): Promise<Publication> {
  const { now, renew } = options;
  const isStale = (role: "snapshot" | "timestamp"): boolean =>
    !head ||
    renew?.has(role) === true ||
    !isSatisfied(head[role].metadata, inForce[role]) ||
    isRenewalDue(role, expiresTime(head[role].metadata.signed), now);
  const named = targets ?? head!.targets;
  const snapshot =
    targets || isStale("snapshot")
      ? await signOnline(
          buildSnapshot(named, (head?.snapshot.metadata.signed.version ?? 0) + 1, expiryOf("snapshot", now)),
          inForce.snapshot,
          options.signers,
        )
      : undefined;
  const timestamp =
    snapshot || isStale("timestamp")
      ? await signOnline(
          buildTimestamp(
            snapshot ?? head!.snapshot,
            (head?.timestamp.metadata.signed.version ?? 0) + 1,
            expiryOf("timestamp", now),
          ),
          inForce.timestamp,
          options.signers,
        )
      : undefined;
  return {
    ...(root ? { root } : {}),
    ...(targets ? { targets } : {}),
    ...(snapshot ? { snapshot } : {}),
    ...(timestamp ? { timestamp } : {}),
  };
}

async function signOnline<Part extends SignedPart>(
  part: Part,
  role: RoleKeys,
  signers: ReadonlyMap<string, Signer>,
): Promise<Published<Part>> {
  const metadata = new Metadata<Part>(part);
  const failures = await addSignatures(metadata, [role], signers);
  if (isSatisfied(metadata, role)) return publishedForm(metadata);
  throw new FieldloopError(
    "trust_key_unavailable",
    `Sign ${part.type}: ${signersOf(metadata, role).length} of ${role.threshold} keys could sign here`,
    { cause: failures[0] },
  );
}

function collectedFor(
  role: "root" | "targets",
  collected: readonly StoredSignature[] = [],
): Record<string, Signature> {
  const mine = collected.filter((signature) => signature.role === role);
  return Object.fromEntries(
    mine.map(({ keyId, signature }) => [keyId, new Signature({ keyID: keyId, sig: signature })]),
  );
}

/** Only signatures that count are published. */
function keepValid<Part extends SignedPart>(
  metadata: Metadata<Part>,
  roles: readonly RoleKeys[],
): Metadata<Part> {
  const valid = new Set(roles.flatMap((role) => signersOf(metadata, role)));
  const kept = Object.entries(metadata.signatures).filter(([keyId]) => valid.has(keyId));
  return new Metadata<Part>(metadata.signed, Object.fromEntries(kept));
}
