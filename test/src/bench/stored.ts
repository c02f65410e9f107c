import { join } from "node:path";
import { decodePredictions, predictionRow, type PredictionRow, type SignalName } from "@fieldloop/protocol";
import Sqlite from "better-sqlite3";

/** Every stored prediction of a device, in the order in which they were made. */
export function storedRows(
  dataDir: string,
  device: string,
): { rows: PredictionRow[]; signalNames: readonly SignalName[] } {
  const batches = payloads(dataDir, device).map((payload) => decodePredictions(payload));
  const rows = batches.flatMap((columns) =>
    Array.from({ length: columns.count }, (_, index) => predictionRow(columns, index)),
  );
  return { rows, signalNames: batches[0]?.signalNames ?? [] };
}

/** Milliseconds from one prediction to the next: where the version changed, and the 99th percentile of all others. */
export function swapGaps(dataDir: string, device: string): { swaps: number[]; p99: number } {
  const swaps: number[] = [];
  const others: number[] = [];
  let last: { time: number; version: number } | undefined;
  for (const payload of payloads(dataDir, device)) {
    const columns = decodePredictions(payload);
    const { version } = columns.versionRef;
    for (const time of columns.time) {
      if (last) (last.version === version ? others : swaps).push(time - last.time);
      last = { time, version };
    }
  }
  others.sort((a, b) => a - b);
  return { swaps, p99: others[Math.floor(others.length * 0.99)] ?? Number.NaN };
}

function payloads(dataDir: string, device: string): Buffer[] {
  const database = new Sqlite(join(dataDir, "fieldloop.db"), { readonly: true });
  try {
    const rows = database
      .prepare("select payload from prediction_segments where device = ? order by boot, seq")
      .all(device) as { payload: Buffer }[];
    return rows.map(({ payload }) => payload);
  } finally {
    database.close();
  }
}
