import { FieldloopError } from "@fieldloop/protocol";
import { DELTA_HEADER_BYTES, encodeDeltaHeader } from "./header.js";
import { DELTA_LIMITS } from "./limits.js";
import { NumberChunk, NumbersCoder } from "./numbers-coder.js";
import { OperationCoder, type Operation } from "./operations.js";
import { planDelta } from "./plan.js";
import { RangeEncoder } from "./range-coder.js";
import { TextCoder } from "./text.js";

export interface MakeDeltaOptions {
  /** Lower-case hexadecimal SHA-256 of some bytes. */
  readonly sha256: (bytes: Uint8Array) => string;
  /** A delta with more bytes is not worth having: its making ends there. */
  readonly bytesMax?: number;
  readonly signal?: AbortSignal;
}

/**
 * Makes the delta that turns `base` into `target`, any two files; it is small where both are ONNX files of the same network. Undefined where
 * it would have more than `bytesMax` bytes. The same files give the same delta.
 * @throws FieldloopError `limit_exceeded` for a file above `fileBytesMax`, `cancelled`
 */
export function makeDelta(
  base: Uint8Array,
  target: Uint8Array,
  options: MakeDeltaOptions,
): Uint8Array | undefined {
  const { sha256, signal } = options;
  const bytesMax = Math.min(options.bytesMax ?? Number.POSITIVE_INFINITY, DELTA_LIMITS.deltaBytesMax);
  const largest = Math.max(base.length, target.length);
  if (largest > DELTA_LIMITS.fileBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Make delta: a file of ${largest} bytes, at most ${DELTA_LIMITS.fileBytesMax}`,
    );
  }
  const operations = planDelta(base, target);
  if (operations.length > DELTA_LIMITS.operationsMax) return undefined;
  const writer = new PieceWriter(base, target, bytesMax - DELTA_HEADER_BYTES, signal);
  for (const operation of operations) if (!writer.write(operation)) return undefined;
  const stream = writer.finish();
  if (stream.length + DELTA_HEADER_BYTES > bytesMax) return undefined;
  const delta = new Uint8Array(DELTA_HEADER_BYTES + stream.length);
  delta.set(
    encodeDeltaHeader({
      baseBytes: base.length,
      baseSha256: sha256(base),
      targetBytes: target.length,
      targetSha256: sha256(target),
      operations: operations.length,
    }),
  );
  delta.set(stream, DELTA_HEADER_BYTES);
  return delta;
}

class PieceWriter {
  readonly #coder = new RangeEncoder();
  readonly #chunk = new NumberChunk();
  readonly #numbers = new NumbersCoder(this.#chunk);
  readonly #text = new TextCoder();
  readonly #operations: OperationCoder;
  readonly #base: Uint8Array;
  readonly #target: Uint8Array;
  readonly #streamBytesMax: number;
  readonly #signal: AbortSignal | undefined;
  #at = 0;

  constructor(base: Uint8Array, target: Uint8Array, streamBytesMax: number, signal: AbortSignal | undefined) {
    this.#operations = new OperationCoder(base.length, target.length);
    this.#base = base;
    this.#target = target;
    this.#streamBytesMax = streamBytesMax;
    this.#signal = signal;
  }

  /** False where the delta became larger than allowed. */
  write(operation: Operation): boolean {
    this.#operations.code(this.#coder, operation);
    const code = operation.kind === "numbers" ? this.#numbers.open(operation) : undefined;
    const { base, target } = this.#chunk;
    for (let done = 0; done < operation.bytes; done += DELTA_LIMITS.chunkBytes) {
      if (this.#signal?.aborted) throw new FieldloopError("cancelled", "Make delta: cancelled");
      const bytes = Math.min(DELTA_LIMITS.chunkBytes, operation.bytes - done);
      const at = this.#at + done;
      target.set(this.#target.subarray(at, at + bytes));
      if (operation.kind === "text") this.#text.code(this.#coder, target, 0, bytes);
      else if (operation.kind === "numbers") {
        const { from } = operation;
        if (from === undefined) base.fill(0, 0, bytes);
        else base.set(this.#base.subarray(from + done, from + done + bytes));
        code!(this.#coder, bytes);
      }
      if (this.#coder.length > this.#streamBytesMax) return false;
    }
    this.#at += operation.bytes;
    return true;
  }

  finish(): Uint8Array {
    return this.#coder.finish();
  }
}
