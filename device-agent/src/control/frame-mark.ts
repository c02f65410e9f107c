import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { AGENT_LIMITS } from "../limits.js";

const HASH_LENGTH = 64;

/**
 * Where a lane of the host notes the hashes of the frames that it runs, before it runs them, so that control knows which frames were in
 * hand when the host died. Two small writes into the page cache a run: they outlive the process and cost microseconds, where an IPC
 * message would cost a good part of a millisecond and may be lost with the process.
 *
 * Layout: one byte `1` (running) or `0` (between runs), two digits with the number of frames, then each hash as 64 hexadecimal digits.
 */
export class FrameMark {
  readonly #file: number;

  constructor(path: string) {
    this.#file = openSync(path, "w", 0o600);
  }

  begin(hashes: readonly string[]): void {
    const count = String(hashes.length).padStart(2, "0");
    writeSync(this.#file, `1${count}${hashes.join("")}`, 0, "latin1");
  }

  end(): void {
    writeSync(this.#file, "0", 0, "latin1");
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** The frames that were running when the host ended; none where it was between runs. */
export function readFrameMark(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "latin1");
  } catch {
    // No host ran yet.
    return [];
  }
  const count = Number(/^1(\d\d)/.exec(text)?.[1] ?? 0);
  if (count > AGENT_LIMITS.laneBatchMax) return [];
  const hashes = Array.from({ length: count }, (_, index) =>
    text.slice(3 + index * HASH_LENGTH, 3 + (index + 1) * HASH_LENGTH),
  );
  return hashes.every((hash) => /^[0-9a-f]{64}$/.test(hash)) ? hashes : [];
}
