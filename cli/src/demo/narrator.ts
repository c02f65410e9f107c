import pc from "picocolors";

/** Tells the demo's story in the terminal: chapters, facts and one line that shows what is waited for. */
export class Narrator {
  readonly #started = Date.now();
  readonly #live = process.stderr.isTTY === true;
  #waiting = false;

  chapter(title: string): void {
    this.#clear();
    process.stderr.write(`\n${pc.bold(pc.cyan(title))}\n`);
  }

  say(text: string): void {
    this.#clear();
    process.stderr.write(`${pc.dim(this.#clock())} ${text}\n`);
  }

  /** A line that is overwritten by the next one; silent on a pipe. */
  progress(text: string): void {
    if (this.#live) {
      process.stderr.write(`\r\u001b[2K${pc.dim(`${this.#clock()} … ${text}`)}`);
      this.#waiting = true;
    }
  }

  #clock(): string {
    const seconds = Math.floor((Date.now() - this.#started) / 1000);
    return `${String(Math.floor(seconds / 60)).padStart(2, " ")}:${String(seconds % 60).padStart(2, "0")}`;
  }

  #clear(): void {
    if (this.#waiting) process.stderr.write("\r\u001b[2K");
    this.#waiting = false;
  }
}
