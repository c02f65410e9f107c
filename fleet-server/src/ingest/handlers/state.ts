import { decodeMessage, type DeviceState } from "@fieldloop/protocol";
import type { Database } from "../../store/database.js";
import type { CommitEffects, IngestStores, Origin } from "../context.js";

export function decodeState(payload: Uint8Array): DeviceState {
  return decodeMessage("state", payload);
}

/** The reported state replaces the one before; its warnings are all that are active. */
export async function applyState(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  state: DeviceState,
  effects: CommitEffects,
): Promise<void> {
  const { device } = origin;
  if (await stores.devices.setState(tx, device, state)) effects.live({ type: "device", id: device, device });
}
