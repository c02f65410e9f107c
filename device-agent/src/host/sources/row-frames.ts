import { FieldloopError } from "@fieldloop/protocol";
import type { RowValue } from "@fieldloop/runtime";
import { AGENT_LIMITS } from "../../limits.js";
import type { RowReading } from "../../source-spec.js";
import { type Row, rowMalformed, RowParser } from "./row-parser.js";
import type { SourceContext, SourceFrame, WindowShape } from "./source.js";
import { WindowCutter } from "./window-cutter.js";

/** What the streams of one source count together, and tell as one trouble. */
export class RowLedger {
  rows = 0;
  malformedRows = 0;
  gaps = 0;
  readonly #context: Pick<SourceContext, "clock" | "onTrouble">;
  readonly #action: string;
  #toldAt = Number.NEGATIVE_INFINITY;
  #troubled = false;
  #goodInARow = 0;

  constructor(context: Pick<SourceContext, "clock" | "onTrouble">, action: string) {
    this.#context = context;
    this.#action = action;
  }

  good(): void {
    this.rows++;
    if (!this.#troubled || ++this.#goodInARow < AGENT_LIMITS.rowsHealthy) return;
    this.#troubled = false;
    this.#context.onTrouble(undefined);
  }

  /** `where`: `line 17`, `message on "a/b"`. Told at once, then at intervals. */
  malformed(where: string, what: string): void {
    this.malformedRows++;
    this.#troubled = true;
    this.#goodInARow = 0;
    const now = this.#context.clock.monotonic();
    if (now - this.#toldAt < AGENT_LIMITS.sourceTroubleIntervalMs) return;
    this.#toldAt = now;
    const count =
      this.malformedRows === 1 ? "" : ` (${this.malformedRows} of ${this.malformedRows + this.rows} rows)`;
    this.#context.onTrouble(
      new FieldloopError("row_malformed", `${this.#action}: ${where}: ${what}${count}`),
    );
  }
}

/** Turns the lines, documents or bytes of one stream into frames: a row each for a table, windows for a signal. */
export class RowFrames {
  readonly #reading: RowReading;
  readonly #context: SourceContext;
  readonly #ledger: RowLedger;
  readonly #parser: RowParser;
  #cutter: WindowCutter | undefined;
  #scratch = new Float32Array(0);
  /** The values before, for `hold`. */
  #held: number[] = [];
  #lastMs: number | undefined;
  #fresh = true;

  constructor(reading: RowReading, context: SourceContext, ledger: RowLedger) {
    this.#reading = reading;
    this.#context = context;
    this.#ledger = ledger;
    this.#parser = new RowParser(reading);
  }

  /** One line of CSV or NDJSON. */
  *line(text: string, where: () => string): Generator<SourceFrame> {
    if (this.#reading.format === "csv") {
      yield* this.#rows(where, () => {
        const row = this.#parser.csv(text);
        return row ? [row] : [];
      });
    } else if (text.trim() !== "") yield* this.document(text, where);
  }

  /** One JSON text: a row, a list of rows, or for a signal of one channel a list of its samples. */
  *document(text: string, where: () => string): Generator<SourceFrame> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      this.#ledger.malformed(where(), `"${text.slice(0, 40)}" is no JSON`);
      return;
    }
    if (!Array.isArray(value)) {
      yield* this.#rows(where, () => this.#parser.json(value));
      return;
    }
    const items = value as unknown[];
    if (items.some((item) => typeof item === "object" && item !== null)) {
      for (const item of items) yield* this.#rows(where, () => this.#parser.json(item));
    } else if (this.#isPlainSignal()) {
      // A sample that is no number is missing; for text `NaN` stands just as well.
      yield* this.values(
        Float32Array.from(items, (item) => (typeof item === "number" ? item : Number.NaN)),
        where,
      );
    } else yield* this.#rows(where, () => this.#parser.json(items));
  }

  /** float32 values, interleaved; as many as come. */
  *values(values: Float32Array, where: () => string): Generator<SourceFrame> {
    const channels = this.#context.window?.()?.channels ?? this.#reading.columns?.length ?? 1;
    if (values.length % channels !== 0) {
      this.#ledger.malformed(where(), `${values.length} values, wanted a multiple of ${channels}`);
      return;
    }
    for (let at = 0; at < values.length; at += channels) {
      const row = Array.from(values.subarray(at, at + channels), (value) =>
        Number.isFinite(value) ? value : null,
      );
      yield* this.#rows(where, () => [{ names: this.#reading.columns, values: row, time: undefined }]);
    }
  }

  /** Values of a signal that has no gaps and no holes, e.g. sound. @throws FieldloopError `source_failed` where no window is known */
  *signal(values: Float32Array): Generator<SourceFrame> {
    const shape = this.#shape();
    if (!shape)
      throw new FieldloopError("source_failed", "Cut windows: the model wants none, or say length=");
    for (const { samples, fresh } of this.#cutterOf(shape, shape.channels ?? 1).push(values)) {
      yield { frame: { kind: "window", samples }, time: this.#context.clock.now(), fresh };
    }
  }

  /** The stream broke off: a window does not go on behind the break. */
  cut(): void {
    this.#cutter?.reset();
    this.#held = [];
    this.#lastMs = undefined;
    this.#fresh = true;
  }

  *#rows(where: () => string, parse: () => readonly Row[]): Generator<SourceFrame> {
    let rows: readonly Row[];
    try {
      rows = parse();
    } catch (error) {
      this.#malformed(where, error);
      return;
    }
    for (const row of rows) {
      try {
        const shape = this.#shape();
        const time = this.#timeOf(row, shape);
        if (shape) yield* this.#windows(row.values, shape, time);
        else {
          const frame = this.#rowFrame(row, time);
          this.#ledger.good();
          yield frame;
        }
      } catch (error) {
        this.#malformed(where, error);
      }
    }
  }

  #isPlainSignal(): boolean {
    const { columns, shape } = this.#reading;
    return columns === undefined && shape !== "row" && this.#context.window?.()?.channels === 1;
  }

  #malformed(where: () => string, error: unknown): void {
    if (!(error instanceof FieldloopError) || error.code !== "row_malformed") throw error;
    this.#ledger.malformed(where(), error.message);
  }

  /** The window to be cut, or undefined where a row is a frame. What the source was told goes before what the model says. */
  #shape():
    | { length: number; hop: number; channels: number | undefined; hz: number | undefined }
    | undefined {
    const { shape, length, hop, columns, hz } = this.#reading;
    if (shape === "row") return undefined;
    const wanted: WindowShape | undefined = this.#context.window?.();
    const samples = length ?? wanted?.length;
    if (samples === undefined) {
      if (shape === "window")
        throw rowMalformed(
          "the model has no window input (length= cuts windows of that many samples anyway)",
        );
      return undefined;
    }
    return {
      length: samples,
      hop: hop ?? (length === undefined ? wanted?.hop : undefined) ?? samples,
      channels: wanted?.channels ?? columns?.length,
      hz: hz ?? wanted?.sampleRateHz,
    };
  }

  /** When it was taken; notes a gap before it. */
  #timeOf(row: Row, shape: { hz: number | undefined } | undefined): number {
    const now = this.#context.clock.now();
    const hz = shape?.hz ?? this.#reading.hz;
    if (!row.time) {
      // A further sample of one message.
      if (this.#lastMs !== undefined && hz !== undefined) this.#lastMs += 1000 / hz;
      return now;
    }
    const { ms, absolute } = row.time;
    const stepMs = this.#lastMs === undefined ? 0 : ms - this.#lastMs;
    const gap = stepMs < 0 || (hz !== undefined && stepMs > (this.#reading.gap * 1000) / hz);
    this.#lastMs = ms;
    if (gap) {
      this.#ledger.gaps++;
      this.#cutter?.reset();
      this.#held = [];
      this.#fresh = true;
    }
    return absolute && ms >= 0 ? ms : now;
  }

  #rowFrame(row: Row, time: number): SourceFrame {
    const names = row.names ?? this.#context.columns?.();
    if (names && names.length < row.values.length) {
      throw rowMalformed(`${row.values.length} values for the columns ${names.join(", ").slice(0, 200)}`);
    }
    const values: Record<string, RowValue> = {};
    for (const [at, value] of row.values.entries()) {
      // Such a name would set the object's prototype instead.
      const name = names?.[at] ?? String(at);
      if (name !== "__proto__") values[name] = value;
    }
    const fresh = this.#fresh;
    this.#fresh = false;
    return { frame: { kind: "row", values }, time, ...(fresh ? { fresh } : {}) };
  }

  *#windows(
    values: readonly RowValue[],
    shape: { length: number; hop: number; channels: number | undefined },
    time: number,
  ): Generator<SourceFrame> {
    const channels = shape.channels ?? values.length;
    if (values.length !== channels) {
      throw rowMalformed(`${values.length} values, the window has ${channels} channels: say columns=`);
    }
    if (this.#scratch.length !== channels) this.#scratch = new Float32Array(channels);
    for (let at = 0; at < channels; at++) {
      const value = this.#sample(values[at]!, at);
      if (value === undefined) throw rowMalformed(`no value in column ${at}`);
      this.#scratch[at] = value;
    }
    if (this.#reading.missing === "hold") this.#held = Array.from(this.#scratch);
    const windows = this.#cutterOf(shape, channels).push(this.#scratch);
    this.#ledger.good();
    for (const { samples, fresh } of windows) {
      yield { frame: { kind: "window", samples }, time, ...(fresh ? { fresh } : {}) };
    }
  }

  /** @returns undefined for a row to be left out */
  #sample(value: RowValue, at: number): number | undefined {
    if (typeof value === "number" && Number.isFinite(value)) return value;
    if (typeof value === "boolean") return value ? 1 : 0;
    if (typeof value === "string") throw rowMalformed(`"${value.slice(0, 40)}" in column ${at} is no number`);
    const { missing } = this.#reading;
    return missing === "hold" ? this.#held[at] : missing === "skip" ? undefined : missing;
  }

  #cutterOf(shape: { length: number; hop: number }, channels: number): WindowCutter {
    const { length, hop } = shape;
    const cutter = this.#cutter;
    if (cutter && cutter.length === length && cutter.hop === hop && cutter.channels === channels)
      return cutter;
    if (length * channels > AGENT_LIMITS.windowValuesMax) {
      throw rowMalformed(`windows of ${length} × ${channels} values`);
    }
    this.#cutter = new WindowCutter({ length, hop, channels });
    return this.#cutter;
  }
}
