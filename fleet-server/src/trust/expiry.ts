import type { TrustRole } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";

const LIFETIME_MS: Readonly<Record<TrustRole, number>> = {
  root: SERVER_LIMITS.trustRootLifetimeMs,
  targets: SERVER_LIMITS.trustTargetsLifetimeMs,
  snapshot: SERVER_LIMITS.trustSnapshotLifetimeMs,
  timestamp: SERVER_LIMITS.trustTimestampLifetimeMs,
};
const RENEWAL_MS: Readonly<Record<TrustRole, number>> = {
  root: SERVER_LIMITS.trustRootRenewalMs,
  targets: SERVER_LIMITS.trustTargetsRenewalMs,
  snapshot: SERVER_LIMITS.trustSnapshotRenewalMs,
  timestamp: SERVER_LIMITS.trustTimestampRenewalMs,
};

/** When metadata made now expire, by role. */
export function expiryOf(role: TrustRole, now: number): number {
  return now + LIFETIME_MS[role];
}

/** Time to make them anew: what is left is no more than the role's renewal time. */
export function isRenewalDue(role: TrustRole, expires: number, now: number): boolean {
  return expires - now <= RENEWAL_MS[role];
}

/** When {@link isRenewalDue} begins to hold. */
export function renewalTime(role: TrustRole, expires: number): number {
  return expires - RENEWAL_MS[role];
}
