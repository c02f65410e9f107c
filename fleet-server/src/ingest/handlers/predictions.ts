import type { PredictionColumns } from "@fieldloop/protocol";
import type { Database } from "../../store/database.js";
import type { CommitEffects, IngestStores, Origin } from "../context.js";
import { settle } from "../feedback.js";

/** Stores the batch as it came, as one segment, adds it to the rollups and settles feedback that was there before it. */
export async function applyPredictions(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  columns: PredictionColumns,
  effects: CommitEffects,
): Promise<void> {
  const { device, received, payload } = origin;
  const { boot, seq, firstN, count, versionRef } = columns;
  const segment = {
    device,
    boot,
    seq,
    model: versionRef.model,
    version: versionRef.version,
    packagePrefix: versionRef.packagePrefix,
    firstN,
    count,
    t0: columns.time[0]!,
    t1: columns.time[count - 1]!,
    received,
    payload,
  };
  await stores.telemetry.insertSegment(tx, segment);
  const waiting = await stores.telemetry.pendingFeedback(tx, device, boot, firstN, firstN + count);
  if (waiting.length > 0) await settle(tx, stores.telemetry, stores.labels, segment, columns, waiting);
  effects.rollups.add(device, columns);
  effects.predictions(device, count);
  effects.live({ type: "predictions", id: device, device });
}
