/** A few lines at the end of a terminal that are drawn over again; what was printed before stays. */
export class Screen {
  readonly #out: NodeJS.WriteStream;
  #drawn: readonly string[] = [];

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
  }

  get width(): number {
    return this.#out.columns ?? 100;
  }
  get height(): number {
    return this.#out.rows ?? 40;
  }

  /** Replaces what was drawn before, in one write, so that nothing flickers. More lines than the terminal has lose their end. */
  draw(lines: readonly string[]): void {
    const shown = lines.slice(0, Math.max(1, this.height - 1));
    const up = this.#drawn.length > 0 ? `\u001b[${this.#drawn.length}A` : "";
    const text = shown.map((line) => `\u001b[2K${line}\n`).join("");
    this.#out.write(`${up}${text}\u001b[0J`);
    this.#drawn = shown;
  }

  /** A line that stays, above what is drawn. */
  print(line: string): void {
    const drawn = this.#drawn;
    this.draw([]);
    this.#out.write(`${line}\n`);
    this.#drawn = [];
    if (drawn.length > 0) this.draw(drawn);
  }
}
