import { decodeMessage, type Presence } from "@fieldloop/protocol";
import type { Database } from "../../store/database.js";
import type { CommitEffects, IngestStores, Origin } from "../context.js";

export function decodePresence(payload: Uint8Array): Presence {
  return decodeMessage("presence", payload);
}

/** Online or offline, as the device or its last will says. */
export async function applyPresence(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  presence: Presence,
  effects: CommitEffects,
): Promise<void> {
  const { device } = origin;
  if (await stores.devices.setPresence(tx, device, presence.boot, presence.online)) {
    effects.live({ type: "device", id: device, device });
  }
}
