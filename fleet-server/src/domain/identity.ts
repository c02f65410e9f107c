import type { DeviceState, Presence } from "@fieldloop/protocol";

/** The agent that was last heard under a device's identity, and what spoke against its being the only one. */
export interface KnownAgent {
  readonly boot: number;
  /** Null where its agent does not tell. */
  readonly instance: string | null;
  readonly conflict: IdentityConflict | null;
}

/** Two agents with one identity: a copied memory card, a restored image, a stolen credential. */
export interface IdentityConflict {
  readonly since: number;
  /** When it was last noticed, milliseconds since the epoch. */
  readonly seen: number;
  /** The boot that both of them count as theirs; null where their boots differ, so that what they send can be told apart. */
  readonly sharedBoot: number | null;
}

/** A conflict is over when nothing spoke for it for so long: two agents take the connection from each other within seconds. */
export const CONFLICT_QUIET_MS = 10 * 60_000;

/**
 * What the presence of an agent says about who uses the identity; undefined where it says nothing new. Each start of an agent draws an
 * instance number and counts its boots up: another instance with the same boot, or an older boot that comes online again, is another agent.
 * A last will of an older boot is no sign of life.
 */
export function judgePresence(
  known: KnownAgent,
  presence: Pick<Presence, "online" | "boot" | "instance">,
  now: number,
): KnownAgent | undefined {
  if (!presence.online) return undefined;
  const instance = presence.instance ?? null;
  if (presence.boot > known.boot)
    return { boot: presence.boot, instance, conflict: active(known.conflict, now) };
  const since = active(known.conflict, now)?.since ?? now;
  if (presence.boot < known.boot) {
    return { ...known, conflict: { since, seen: now, sharedBoot: sharedBoot(known, now) } };
  }
  const isOther = instance !== null && known.instance !== null && instance !== known.instance;
  if (isOther) return { boot: known.boot, instance, conflict: { since, seen: now, sharedBoot: known.boot } };
  return known.instance === instance ? undefined : { ...known, instance };
}

function sharedBoot(known: KnownAgent, now: number): number | null {
  return active(known.conflict, now)?.sharedBoot ?? null;
}

/** The conflict where it still holds. */
export function active(conflict: IdentityConflict | null, now: number): IdentityConflict | null {
  return conflict !== null && now - conflict.seen < CONFLICT_QUIET_MS ? conflict : null;
}

/** As a warning beside those that the device reports itself. */
export function conflictWarning(conflict: IdentityConflict): DeviceState["warnings"][number] {
  const message =
    conflict.sharedBoot === null
      ? "Two agents use this device's identity. What the one with the older boot sends is not taken in. Enrol one of them anew."
      : `Two agents use this device's identity, both as boot ${conflict.sharedBoot}. What they send as that boot is not taken in and stays on them. Restart one of them and enrol the other anew.`;
  return { code: "identity_conflict", severity: "error", message, since: conflict.since };
}
