import type { Clock } from "../clock.js";
import type { DaemonParts } from "./daemon-parts.js";
import { httpFetch } from "./http-fetch.js";
import { TrustFollower, type TrustFollowerOptions } from "./trust-follower.js";
import { TrustClient } from "./trust/trust-client.js";

export interface DeviceTrust {
  readonly client: TrustClient;
  readonly follower: TrustFollower;
}

/** Whom this device believes: its factory root is the one that it was given when it enrolled. */
export function deviceTrust(
  { options, identity }: DaemonParts,
  given: Pick<TrustFollowerOptions, "warnings" | "onRefreshed"> & {
    readonly clock: Clock;
    /** Bytes that were fetched. Counted, never held back: who may direct this device is worth more than all else that travels. */
    readonly spent: (bytes: number) => void;
    readonly onHarmed: (message: string) => void;
  },
): DeviceTrust {
  const { clock, warnings, onRefreshed } = given;
  const random = options.random ?? Math.random;
  const client = new TrustClient({
    directory: options.directory,
    server: identity.server,
    credential: identity.credential,
    factoryRoot: identity.root,
    enrolledKeys: identity.fleetKeys,
    fetch: options.fetch ?? httpFetch,
    clock,
    random,
    budget: async (bytes) => given.spent(bytes),
    onHarmed: given.onHarmed,
    ...(options.updateTimes?.trust ? { limits: options.updateTimes.trust } : {}),
  });
  const follower = new TrustFollower({ client, clock, random, log: options.log, warnings, onRefreshed });
  return { client, follower };
}
