import { decodeMessage, type Presence } from "@fieldloop/protocol";
import { judgePresence } from "../../domain/identity.js";
import type { Database } from "../../store/database.js";
import type { CommitEffects, IngestStores, Origin } from "../context.js";

export function decodePresence(payload: Uint8Array): Presence {
  return decodeMessage("presence", payload);
}

/** Online or offline, as the device or its last will says; and whether that is the agent that was heard before. */
export async function applyPresence(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  presence: Presence,
  effects: CommitEffects,
): Promise<void> {
  const { device, received } = origin;
  const known = await stores.devices.agent(tx, device);
  const judged = known && judgePresence(known, presence, received);
  if (judged) {
    await stores.devices.setAgent(tx, device, judged);
    effects.live({ type: "device", id: device, device });
    if (judged.conflict?.seen === received) effects.conflict(device, judged.conflict);
  }
  if (await stores.devices.setPresence(tx, device, presence.boot, presence.online)) {
    effects.live({ type: "device", id: device, device });
  }
}
