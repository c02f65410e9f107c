import { decodePredictions, type PredictionColumns } from "@fieldloop/protocol";
import { labelOf, type LabelService } from "../services/labels.js";
import type { Database } from "../store/database.js";
import type { FeedbackRow, Segment, TelemetryStore } from "../store/telemetry.js";
import { bucketOf } from "./rollups.js";

/** Versions are settled in parts of this many segments when their labels become known. */
const SEGMENTS_PER_PART = 50;

/**
 * Settles feedback against one segment: was the prediction right? Feedback that only names a label waits until the version's labels
 * are known. Each feedback is counted once, whichever of the two came first.
 */
export async function settle(
  tx: Database,
  store: TelemetryStore,
  labels: LabelService,
  segment: Omit<Segment, "payload">,
  columns: PredictionColumns,
  feedback: readonly FeedbackRow[],
): Promise<void> {
  const names = await labels.get(segment.model, segment.version, tx);
  for (const row of feedback) {
    const index = row.n - columns.firstN;
    const correct = judge(row, names, columns.class[index]!);
    if (correct === undefined) continue;
    const { device, model, version } = segment;
    await store.foldFeedback(
      tx,
      row,
      { device, bucket: bucketOf(columns.time[index]!), model, version },
      correct,
    );
  }
}

function judge(
  row: FeedbackRow,
  names: readonly string[] | undefined,
  predicted: number,
): boolean | undefined {
  if (row.correct !== null) return row.correct === 1;
  if (!names || row.label === null) return undefined;
  return labelOf(names, predicted) === row.label;
}

/** Settles what waited for the labels of a version. */
export async function settleVersion(
  database: Database,
  store: TelemetryStore,
  labels: LabelService,
  model: string,
  version: number,
): Promise<void> {
  for (;;) {
    const settled = await database.transaction(async (tx) => {
      const segments = await store.segmentsWithPending(tx, model, version, SEGMENTS_PER_PART);
      for (const segment of segments) {
        const { device, boot, firstN, count } = segment;
        const pending = await store.pendingFeedback(tx, device, boot, firstN, firstN + count);
        await settle(tx, store, labels, segment, decodePredictions(segment.payload), pending);
      }
      return segments.length;
    });
    if (settled < SEGMENTS_PER_PART) return;
  }
}
