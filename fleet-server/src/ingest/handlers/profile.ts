import { decodeMessage, type Profile } from "@fieldloop/protocol";
import type { Database } from "../../store/database.js";
import type { IngestStores, Origin } from "../context.js";

export function decodeProfile(payload: Uint8Array): Profile {
  return decodeMessage("profile", payload);
}

export async function applyProfile(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  profile: Profile,
): Promise<void> {
  const { boot, seq, model, version, from, to, statistics, framesDropped, framesFailed } = profile;
  const { device } = origin;
  await stores.telemetry.insertProfile(tx, {
    device,
    boot,
    seq,
    model,
    version,
    from,
    to,
    statistics,
    framesDropped,
    framesFailed,
  });
}
