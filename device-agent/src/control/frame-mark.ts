import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

/**
 * Where the host notes the hash of a frame before it runs it, so that control knows which frame was in hand when the host
 * died. Two small writes into the page cache a frame: they outlive the process and cost microseconds, where an IPC message
 * would cost a good part of a millisecond and may be lost with the process.
 *
 * Layout: one byte `1` (running) or `0` (between frames), then the hash as 64 hexadecimal digits.
 */
export class FrameMark {
  readonly #file: number;

  constructor(path: string) {
    this.#file = openSync(path, "w", 0o600);
  }

  begin(sha256: string): void {
    writeSync(this.#file, `1${sha256}`, 0, "latin1");
  }

  end(): void {
    writeSync(this.#file, "0", 0, "latin1");
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** The frame that was running when the host ended; undefined where it was between frames. */
export function readFrameMark(path: string): string | undefined {
  try {
    const text = readFileSync(path, "latin1");
    return /^1[0-9a-f]{64}$/.test(text) ? text.slice(1) : undefined;
  } catch {
    // No host ran yet.
    return undefined;
  }
}
