import { FieldloopError } from "@fieldloop/protocol";
import { DELTA_HEADER_BYTES, readDeltaHeader, type DeltaHeader } from "./header.js";
import { DELTA_LIMITS } from "./limits.js";
import { NumberChunk, NumbersCoder } from "./numbers-coder.js";
import { OperationCoder, type Operation } from "./operations.js";
import { RangeDecoder } from "./range-coder.js";
import { TextCoder } from "./text.js";

/** The file that a delta starts from. */
export interface DeltaBase {
  readonly bytes: number;
  /** Fills `into` from the byte `from` on, which is within the file. */
  read(from: number, into: Uint8Array): Promise<void> | void;
}

/** Takes the target in order; the chunk's memory is used again afterwards. */
export type DeltaSink = (chunk: Uint8Array) => Promise<void> | void;

/**
 * Rebuilds the target, chunk by chunk, in memory that does not grow with the files. Knows nothing of ONNX and trusts nothing: a forged
 * delta can at most give another file of the size it claims. Whether it is the right one is for the caller to say by the hash.
 * @throws FieldloopError `delta_malformed`, `delta_base_mismatch` where the base has another size, and what `base` and `sink` throw
 */
export async function readDelta(
  delta: Uint8Array,
  base: DeltaBase,
  sink: DeltaSink,
  options: { readonly signal?: AbortSignal } = {},
): Promise<DeltaHeader> {
  const header = readDeltaHeader(delta);
  if (base.bytes !== header.baseBytes) {
    throw new FieldloopError(
      "delta_base_mismatch",
      `Apply delta: the base has ${base.bytes} bytes, wanted ${header.baseBytes}`,
    );
  }
  const coder = new RangeDecoder(delta.subarray(DELTA_HEADER_BYTES));
  const operations = new OperationCoder(header.baseBytes, header.targetBytes);
  const reader = new PieceReader(coder, base, sink, options.signal);
  for (let count = 0; count < header.operations; count++) await reader.read(operations.code(coder));
  coder.check();
  if (operations.remaining > 0) {
    throw new FieldloopError("delta_malformed", `Read delta: ${operations.remaining} bytes are missing`);
  }
  return header;
}

class PieceReader {
  readonly #coder: RangeDecoder;
  readonly #base: DeltaBase;
  readonly #sink: DeltaSink;
  readonly #signal: AbortSignal | undefined;
  readonly #chunk = new NumberChunk();
  readonly #numbers = new NumbersCoder(this.#chunk);
  readonly #text = new TextCoder();

  constructor(coder: RangeDecoder, base: DeltaBase, sink: DeltaSink, signal: AbortSignal | undefined) {
    this.#coder = coder;
    this.#base = base;
    this.#sink = sink;
    this.#signal = signal;
  }

  async read(operation: Operation): Promise<void> {
    const next = this.#nextOf(operation);
    for (let at = 0; at < operation.bytes; at += DELTA_LIMITS.chunkBytes) {
      this.#signal?.throwIfAborted();
      const bytes = Math.min(DELTA_LIMITS.chunkBytes, operation.bytes - at);
      await next(at, bytes);
      this.#coder.check();
      await this.#sink(this.#chunk.target.subarray(0, bytes));
    }
  }

  /** Makes the next bytes of the target at the beginning of the chunk. */
  #nextOf(operation: Operation): (at: number, bytes: number) => Promise<void> | void {
    const { base, target } = this.#chunk;
    switch (operation.kind) {
      case "copy":
        return (at, bytes) => this.#base.read(operation.from + at, target.subarray(0, bytes));
      case "text":
        return (_at, bytes) => this.#text.code(this.#coder, target, 0, bytes);
      case "numbers": {
        const code = this.#numbers.open(operation);
        const { from } = operation;
        if (from === undefined) base.fill(0);
        return async (at, bytes) => {
          if (from !== undefined) await this.#base.read(from + at, base.subarray(0, bytes));
          code(this.#coder, bytes);
        };
      }
    }
  }
}
