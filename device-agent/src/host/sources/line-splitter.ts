const NEWLINE = 0x0a;

/** Cuts bytes into lines of text. A line beyond its limit is told, skipped to its end, and never held. */
export class LineSplitter {
  readonly #bytesMax: number;
  readonly #onTooLong: (lineNumber: number) => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #skipping = false;
  #lineNumber = 0;

  constructor(bytesMax: number, onTooLong: (lineNumber: number) => void) {
    this.#bytesMax = bytesMax;
    this.#onTooLong = onTooLong;
  }

  /** Of the line given last, from 1. */
  get lineNumber(): number {
    return this.#lineNumber;
  }

  /** The lines that are whole now, without their ends. */
  *push(chunk: Buffer): Generator<string> {
    let at = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, at);
      if (end < 0) break;
      const line = this.#take(chunk.subarray(at, end));
      at = end + 1;
      if (line !== undefined) yield line;
    }
    this.#hold(chunk.subarray(at));
  }

  /** What stands behind the last line end; nothing is held afterwards. */
  end(): string | undefined {
    return this.#bytes === 0 && !this.#skipping ? undefined : this.#take(Buffer.alloc(0));
  }

  #take(tail: Buffer): string | undefined {
    this.#lineNumber++;
    if (!this.#skipping && this.#bytes + tail.length > this.#bytesMax) this.#tellTooLong();
    const whole = this.#parts.length === 0 ? tail : Buffer.concat([...this.#parts, tail]);
    const skipped = this.#skipping;
    this.#parts = [];
    this.#bytes = 0;
    this.#skipping = false;
    if (skipped) return undefined;
    const text = whole.toString("utf8");
    const from = this.#lineNumber === 1 && text.startsWith("\uFEFF") ? 1 : 0;
    return text.slice(from, text.endsWith("\r") ? -1 : undefined);
  }

  #hold(rest: Buffer): void {
    if (rest.length === 0 || this.#skipping) return;
    this.#bytes += rest.length;
    if (this.#bytes > this.#bytesMax) {
      this.#lineNumber++;
      this.#tellTooLong();
      this.#lineNumber--;
    } else this.#parts.push(rest);
  }

  #tellTooLong(): void {
    this.#skipping = true;
    this.#parts = [];
    this.#bytes = 0;
    this.#onTooLong(this.#lineNumber);
  }
}
