import { AGENT_LIMITS } from "../../limits.js";
import type { RowReading } from "../../source-spec.js";
import { FloatChunks } from "./float-chunks.js";
import { LineSplitter } from "./line-splitter.js";
import { RowFrames, type RowLedger } from "./row-frames.js";
import type { SourceContext, SourceFrame } from "./source.js";

/** Bytes of one connection or file in, frames out. */
export class RowStream {
  readonly #frames: RowFrames;
  readonly #ledger: RowLedger;
  readonly #lines: LineSplitter;
  readonly #floats: FloatChunks | undefined;
  readonly #channels: () => number;

  constructor(reading: RowReading, context: SourceContext, ledger: RowLedger) {
    this.#frames = new RowFrames(reading, context, ledger);
    this.#ledger = ledger;
    this.#floats = reading.format === "float32" ? new FloatChunks() : undefined;
    this.#channels = () => context.window?.()?.channels ?? reading.columns?.length ?? 1;
    this.#lines = new LineSplitter(AGENT_LIMITS.rowLineBytesMax, (line) =>
      ledger.malformed(`line ${line}`, `more than ${AGENT_LIMITS.rowLineBytesMax} bytes`),
    );
  }

  *push(chunk: Buffer): Generator<SourceFrame> {
    if (this.#floats) {
      yield* this.#frames.values(this.#floats.push(chunk, this.#channels()), this.#where);
      return;
    }
    for (const line of this.#lines.push(chunk)) yield* this.#frames.line(line, this.#where);
  }

  /** The end of a file: its last line may lack a line end. */
  *end(): Generator<SourceFrame> {
    const line = this.#lines.end();
    if (line !== undefined) yield* this.#frames.line(line, this.#where);
    if (this.#floats && this.#floats.rest > 0) {
      this.#ledger.malformed("end", `${this.#floats.rest} bytes are no whole sample`);
    }
  }

  /** The next row is the first of its stream; what the header said stays. */
  restart(): void {
    this.#frames.cut();
  }

  /** A connection broke off: what it began is no row. */
  breakOff(): void {
    const rest = this.#floats ? this.#floats.rest > 0 : this.#lines.end() !== undefined;
    if (rest) this.#ledger.malformed(this.#where(), "the connection ended within a row");
    this.#frames.cut();
  }

  readonly #where = (): string =>
    this.#floats ? `sample ${this.#ledger.rows + 1}` : `line ${this.#lines.lineNumber}`;
}
