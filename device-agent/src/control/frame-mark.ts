import { closeSync, constants, openSync, readFileSync, writeSync } from "node:fs";
import { FieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";

const HASH_LENGTH = 64;
const FILE_BYTES = 3 + AGENT_LIMITS.laneBatchMax * HASH_LENGTH;

/**
 * Where a lane of the host notes the hashes of the frames that it runs, before it runs them, so that control knows which frames were in
 * hand when the host died. Two small writes into the page cache a run: they outlive the process and cost microseconds, where an IPC
 * message would cost a good part of a millisecond and may be lost with the process.
 *
 * It is there to find who is to blame, and no reason not to predict: where the disk is full or broken, that is told once and the frames run
 * without it. The room is taken at the start, so that a disk which fills up later makes no difference.
 *
 * Layout: one byte `1` (running) or `0` (between runs), two digits with the number of frames, then each hash as 64 hexadecimal digits.
 */
export class FrameMark {
  readonly #onTrouble: (error: FieldloopError) => void;
  #file: number | undefined;
  #isTold = false;

  /** `onTrouble` hears of it when it begins to fail. */
  constructor(path: string, onTrouble: (error: FieldloopError) => void) {
    this.#onTrouble = onTrouble;
    this.#try(() => {
      this.#file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
      writeSync(this.#file, "0".padEnd(FILE_BYTES), 0, "latin1");
    });
  }

  begin(hashes: readonly string[]): void {
    const count = String(hashes.length).padStart(2, "0");
    this.#write(`1${count}${hashes.join("")}`);
  }

  end(): void {
    this.#write("0");
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #write(text: string): void {
    const file = this.#file;
    if (file !== undefined) this.#try(() => writeSync(file, text, 0, "latin1"));
  }

  #try(work: () => void): void {
    try {
      work();
      this.#isTold = false;
    } catch (cause) {
      if (this.#isTold) return;
      this.#isTold = true;
      const reason = cause instanceof Error ? cause.message : String(cause);
      const message = `Note the frame in hand: ${reason}; frames run without it`;
      this.#onTrouble(new FieldloopError("storage_failed", message, { cause }));
    }
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
