import { FieldloopError } from "@fieldloop/protocol";
import { ELEMENT_KINDS, LEVELS_KIND } from "./elements.js";
import { SLOPE_ONE } from "./levels.js";
import { DELTA_LIMITS } from "./limits.js";
import { codeNumber, NumberModels, unzigzag, zigzag } from "./numbers.js";
import { bitModels, type BitCoder } from "./range-coder.js";

/** One piece of the target; they follow each other without gaps. `from` is where something lies in the base. */
export type Operation = CopyOperation | TextOperation | NumbersOperation;

export interface CopyOperation {
  readonly kind: "copy";
  readonly from: number;
  readonly bytes: number;
}

/** Bytes that the base has nothing like. */
export interface TextOperation {
  readonly kind: "text";
  readonly bytes: number;
}

/** Numbers of a tensor as differences from those at `from`, or from zero where the base has none. */
export interface NumbersOperation {
  readonly kind: "numbers";
  /** Index into `ELEMENT_KINDS`. */
  readonly element: number;
  readonly from: number | undefined;
  readonly bytes: number;
  /** Numbers of one output channel. */
  readonly columns: number;
  /** Of each row, in 4096ths; 8-bit numbers only. */
  readonly slopes: Int32Array | undefined;
}

const KINDS = ["copy", "text", "numbers"] as const;

/** Codes operations one after the other, in either direction. Those that are read are checked, those written are the maker's own. */
export class OperationCoder {
  readonly #kinds = bitModels(4);
  readonly #elements = bitModels(8);
  readonly #flags = bitModels(2);
  readonly #bytes = [new NumberModels(1), new NumberModels(1), new NumberModels(1)];
  readonly #from = new NumberModels(1);
  readonly #columns = new NumberModels(1);
  readonly #slopes = new NumberModels(1);
  readonly #baseBytes: number;
  #remaining: number;
  /** Behind what was used of the base last: where the next piece most often begins. */
  #expected = 0;
  #reading = false;

  constructor(baseBytes: number, targetBytes: number) {
    this.#baseBytes = baseBytes;
    this.#remaining = targetBytes;
  }

  /** Bytes of the target that no operation made yet. */
  get remaining(): number {
    return this.#remaining;
  }

  /** Writes `operation`, or reads one where there is none. @throws FieldloopError `delta_malformed` */
  code(coder: BitCoder, operation?: Operation): Operation {
    this.#reading = operation === undefined;
    const kind = this.#kind(coder, operation);
    const bytes = this.#sized(coder, kind, operation?.bytes ?? 0);
    const coded = this.#rest(coder, KINDS[kind]!, bytes, operation);
    this.#remaining -= bytes;
    return coded;
  }

  #kind(coder: BitCoder, operation: Operation | undefined): number {
    const wanted = operation ? KINDS.indexOf(operation.kind) : 0;
    const high = coder.bit(this.#kinds, 1, wanted >> 1);
    const kind = (high << 1) | coder.bit(this.#kinds, 2 | high, wanted & 1);
    this.#check(kind < KINDS.length, () => `an operation of kind ${kind}`);
    return kind;
  }

  #sized(coder: BitCoder, kind: number, wanted: number): number {
    const bytes = codeNumber(coder, this.#bytes[kind]!, 0, wanted);
    const remaining = this.#remaining;
    this.#check(
      bytes > 0 && bytes <= remaining,
      () => `a piece of ${bytes} bytes where ${remaining} are left`,
    );
    return bytes;
  }

  #rest(
    coder: BitCoder,
    kind: Operation["kind"],
    bytes: number,
    operation: Operation | undefined,
  ): Operation {
    switch (kind) {
      case "copy":
        return {
          kind,
          bytes,
          from: this.#place(coder, bytes, operation?.kind === kind ? operation.from : 0),
        };
      case "text":
        return { kind, bytes };
      case "numbers":
        return this.#numbers(coder, bytes, operation?.kind === kind ? operation : undefined);
    }
  }

  #numbers(coder: BitCoder, bytes: number, operation: NumbersOperation | undefined): NumbersOperation {
    const element = this.#element(coder, operation?.element ?? 0);
    const elements = ELEMENT_KINDS[element];
    this.#check(
      elements !== undefined && bytes % elements.bytes === 0,
      () => `${bytes} bytes of ${elements?.name ?? `kind ${element}`}`,
    );
    const hasBase = coder.bit(this.#flags, 0, operation?.from === undefined ? 0 : 1) === 1;
    const from = hasBase ? this.#place(coder, bytes, operation?.from ?? 0) : undefined;
    if (element !== LEVELS_KIND) {
      return { kind: "numbers", element, from, bytes, columns: 1, slopes: undefined };
    }
    const columns = codeNumber(coder, this.#columns, 0, operation?.columns ?? 0);
    this.#check(
      columns > 0 && columns <= Math.min(bytes, DELTA_LIMITS.columnsMax),
      () => `rows of ${columns} numbers in a piece of ${bytes}`,
    );
    const sloped = coder.bit(this.#flags, 1, operation?.slopes ? 1 : 0) === 1;
    const slopes = sloped ? this.#sloped(coder, Math.ceil(bytes / columns), operation?.slopes) : undefined;
    return { kind: "numbers", element, from, bytes, columns, slopes };
  }

  #element(coder: BitCoder, wanted: number): number {
    let node = 1;
    for (let bit = 2; bit >= 0; bit--)
      node = (node << 1) | coder.bit(this.#elements, node, (wanted >> bit) & 1);
    return node - 8;
  }

  #sloped(coder: BitCoder, rows: number, wanted: Int32Array | undefined): Int32Array {
    this.#check(rows <= DELTA_LIMITS.slopeRowsMax, () => `slopes of ${rows} rows`);
    const slopes = new Int32Array(rows);
    for (let row = 0; row < rows; row++) {
      const coded = codeNumber(coder, this.#slopes, 0, zigzag((wanted?.[row] ?? 0) - SLOPE_ONE));
      const slope = SLOPE_ONE + unzigzag(coded);
      this.#check(slope >= 0 && slope <= SLOPE_MAX, () => `a slope of ${slope}`);
      slopes[row] = slope;
    }
    return slopes;
  }

  /** Where something lies in the base, told from where it was expected. */
  #place(coder: BitCoder, bytes: number, wanted: number): number {
    const from = this.#expected + unzigzag(codeNumber(coder, this.#from, 0, zigzag(wanted - this.#expected)));
    this.#check(
      from >= 0 && from + bytes <= this.#baseBytes,
      () => `bytes ${from} to ${from + bytes} of a base of ${this.#baseBytes}`,
    );
    this.#expected = from + bytes;
    return from;
  }

  #check(holds: boolean, what: () => string): void {
    if (this.#reading && !holds) throw new FieldloopError("delta_malformed", `Read delta: ${what()}`);
  }
}

/** Steeper than this no row was scaled; an 8-bit number times it stays within 31 bits. */
export const SLOPE_MAX = 4 * SLOPE_ONE;
