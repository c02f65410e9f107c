import {
  encodePredictions,
  FieldloopError,
  LIMITS,
  type PredictionRow,
  type SignalName,
  type VersionRef,
} from "@fieldloop/protocol";
import type { Spool } from "./spool/spool.js";

/** Which version made a run of predictions, and what its signal columns mean. */
export interface PredictionOrigin {
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
  readonly signalNames: readonly SignalName[];
}

/** Predictions are worth more than any sample when space runs out. */
const WORTH = 0.5;

/**
 * Gathers the host's rows and appends them to the spool as columnar batches. A batch ends where the version changes, the
 * clock went back or stood still too long, or a limit is reached: the wire form holds neither.
 */
export class PredictionBatcher {
  readonly #spool: Spool;
  readonly #boot: number;
  #origin: PredictionOrigin | undefined;
  #firstN = 0;
  #rows: PredictionRow[] = [];
  #boxes = 0;
  #nextN = 0;

  constructor(spool: Spool, boot: number) {
    this.#spool = spool;
    this.#boot = boot;
  }

  /** Number that the next prediction must carry; also how many were numbered in this boot. */
  get nextN(): number {
    return this.#nextN;
  }

  /** @throws FieldloopError `internal` where the host's numbers do not follow on: then none of the rows is taken */
  add(origin: PredictionOrigin, firstN: number, rows: readonly PredictionRow[]): void {
    if (firstN !== this.#nextN) {
      throw new FieldloopError(
        "internal",
        `Number predictions: the host began at ${firstN}, wanted ${this.#nextN}`,
      );
    }
    const isNew = !this.#origin || !sameOrigin(this.#origin, origin);
    if (isNew) this.cut();
    this.#origin = origin;
    for (const row of rows) this.#addRow(row);
    // The first of a version travel at once: that it predicts should not be known an interval later.
    if (isNew) this.cut();
  }

  #addRow(row: PredictionRow): void {
    const last = this.#rows.at(-1);
    const boxes = row.boxes?.length ?? 0;
    if (last) {
      const gapMs = Math.round(row.time) - Math.round(last.time);
      const full =
        this.#rows.length >= LIMITS.batchRowsMax ||
        this.#boxes + boxes > LIMITS.batchBoxesMax ||
        (row.boxes === undefined) !== (last.boxes === undefined);
      if (full || gapMs < 0 || gapMs > LIMITS.batchGapMsMax) this.cut();
    }
    if (this.#rows.length === 0) this.#firstN = this.#nextN;
    this.#rows.push(row);
    this.#boxes += boxes;
    this.#nextN++;
  }

  /** Closes the batch, if it holds anything, and appends it to the spool. */
  cut(): void {
    const rows = this.#rows;
    const origin = this.#origin;
    if (rows.length === 0 || !origin) return;
    this.#rows = [];
    this.#boxes = 0;
    const versionRef: VersionRef = {
      model: origin.model,
      version: origin.version,
      packagePrefix: origin.packageSha256.slice(0, 16),
    };
    const firstN = this.#firstN;
    this.#spool.append("predictions", { worth: WORTH, protected: false }, (seq) =>
      encodePredictions({
        boot: this.#boot,
        seq,
        prev: 0,
        versionRef,
        firstN,
        signalNames: origin.signalNames,
        rows,
      }),
    );
  }
}

function sameOrigin(a: PredictionOrigin, b: PredictionOrigin): boolean {
  return (
    a.packageSha256 === b.packageSha256 &&
    a.signalNames.length === b.signalNames.length &&
    a.signalNames.every((name, index) => name === b.signalNames[index])
  );
}
