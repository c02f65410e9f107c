import {
  FieldloopError,
  LIMITS,
  TRUST_ROLES,
  trustKeySchema,
  type changeKeysRequestSchema,
  type TrustKey,
} from "@fieldloop/protocol";
import { z } from "zod";
import { keyIdsOf, type RootRoles } from "./documents.js";
import { trustKeyId } from "./keys.js";

const roleSchema = z.object({ keys: z.array(trustKeySchema).min(1), threshold: z.int().min(1) });
/** Roles that wait for a root, as they are stored. */
export const stagedRolesSchema = z.object({
  root: roleSchema,
  targets: roleSchema,
  snapshot: roleSchema,
  timestamp: roleSchema,
});

export type KeyChange = z.output<typeof changeKeysRequestSchema>;

/**
 * The roles after a change of one of them.
 * @param created keys that the server made for this change
 * @throws FieldloopError `invalid_argument` for a change that no root may say: unknown or doubled keys, a key of another role, a threshold
 * that the keys cannot reach, too many keys
 */
export function changeRoles(roles: RootRoles, change: KeyChange, created: readonly TrustKey[]): RootRoles {
  const { role, revoke, revokeAll, threshold } = change;
  const refuse = (reason: string): FieldloopError =>
    new FieldloopError("invalid_argument", `Change keys of "${role}": ${reason}`);
  const had = keyIdsOf(roles[role]);
  const unknown = revoke.find((keyId) => !had.includes(keyId));
  if (unknown !== undefined) throw refuse(`it has no key "${unknown}"`);
  const gone = new Set(revokeAll ? had : revoke);
  const kept = roles[role].keys.filter((key) => !gone.has(trustKeyId(key)));
  const added = [...change.add, ...created];
  for (const key of added) {
    const keyId = trustKeyId(key);
    const owner = TRUST_ROLES.find((candidate) => keyIdsOf(roles[candidate]).includes(keyId));
    if (owner !== undefined) throw refuse(`the key "${keyId}" is one of "${owner}" already`);
  }
  const keys = [...kept, ...added];
  if (new Set(keys.map(trustKeyId)).size !== keys.length) throw refuse("a key is named twice");
  if (keys.length > LIMITS.trustKeysPerRoleMax) {
    throw refuse(`${keys.length} keys, at most ${LIMITS.trustKeysPerRoleMax}`);
  }
  const wanted = threshold ?? Math.min(roles[role].threshold, Math.max(1, keys.length));
  if (keys.length < wanted) throw refuse(`${keys.length} keys cannot reach a threshold of ${wanted}`);
  return { ...roles, [role]: { keys, threshold: wanted } };
}
