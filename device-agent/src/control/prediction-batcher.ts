import {
  encodePredictions,
  LIMITS,
  type PredictionRow,
  type SignalName,
  type VersionRef,
} from "@fieldloop/protocol";
import { PredictionNumbers } from "./prediction-numbers.js";
import type { Spool } from "./spool/spool.js";

/** The batches of all lanes: each has its own, so that rows that come in turns still travel many at a time. */
export class PredictionBatches {
  readonly numbers = new PredictionNumbers();
  readonly #spool: Spool;
  readonly #boot: number;
  readonly #batchers = new Map<string, PredictionBatcher>();

  constructor(spool: Spool, boot: number) {
    this.#spool = spool;
    this.#boot = boot;
  }

  /** @throws FieldloopError `internal` where the host's numbers do not follow on: then none of the rows is taken */
  add(lane: string, origin: PredictionOrigin, firstN: number, rows: readonly PredictionRow[]): void {
    this.numbers.use(lane, firstN, rows.length);
    const batcher = this.#batchers.get(lane) ?? new PredictionBatcher(this.#spool, this.#boot);
    this.#batchers.set(lane, batcher);
    batcher.add(origin, firstN, rows);
  }

  /** Sets a signal of prediction `n`, where its row still waits for its batch to be closed. */
  setSignal(lane: string, n: number, name: SignalName, value: number): void {
    this.#batchers.get(lane)?.setSignal(n, name, value);
  }

  /** Closes every batch that holds anything. */
  cut(): void {
    for (const batcher of this.#batchers.values()) batcher.cut();
  }
}

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
 * Gathers the rows of one lane and appends them to the spool as columnar batches. A batch ends where the version changes, numbers
 * do not follow on, the clock went back or stood still too long, or a limit is reached: the wire form holds neither.
 */
class PredictionBatcher {
  readonly #spool: Spool;
  readonly #boot: number;
  #origin: PredictionOrigin | undefined;
  #firstN = 0;
  #rows: PredictionRow[] = [];
  #boxes = 0;

  constructor(spool: Spool, boot: number) {
    this.#spool = spool;
    this.#boot = boot;
  }

  /** Rows with the numbers from `firstN` on. */
  add(origin: PredictionOrigin, firstN: number, rows: readonly PredictionRow[]): void {
    const isNew = !this.#origin || !sameOrigin(this.#origin, origin);
    if (isNew || firstN !== this.#firstN + this.#rows.length) this.cut();
    this.#origin = origin;
    for (const [index, row] of rows.entries()) this.#addRow(row, firstN + index);
    // The first of a version travel at once: that it predicts should not be known an interval later.
    if (isNew) this.cut();
  }

  setSignal(n: number, name: SignalName, value: number): void {
    const row = this.#rows[n - this.#firstN];
    const at = this.#origin?.signalNames.indexOf(name) ?? -1;
    if (row && at >= 0) this.#rows[n - this.#firstN] = { ...row, signals: row.signals.with(at, value) };
  }

  #addRow(row: PredictionRow, n: number): void {
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
    if (this.#rows.length === 0) this.#firstN = n;
    this.#rows.push(row);
    this.#boxes += boxes;
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
