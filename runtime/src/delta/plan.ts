import { BaseIndex } from "./base-index.js";
import { LEVELS_KIND } from "./elements.js";
import { DELTA_LIMITS } from "./limits.js";
import { matchTensors, type TensorPair } from "./match.js";
import type { Operation } from "./operations.js";
import { fitSlopes } from "./slopes.js";
import { findTensors } from "./tensors.js";

/** A copy of this many bytes costs about as much as they do as text. */
const NEAR_BYTES_MIN = 6;

/**
 * Decides of which pieces a target is put together: tensors by their pairs, all between them by what the base has like it.
 * Neighbouring copies become one.
 */
export function planDelta(base: Uint8Array, target: Uint8Array): Operation[] {
  const baseTensors = findTensors(base);
  const pairs = matchTensors(
    { bytes: base, tensors: baseTensors },
    { bytes: target, tensors: findTensors(target) },
  );
  const planner = new Planner(base, target, gapsBetween(baseTensors, base.length));
  let at = 0;
  for (const pair of pairs) {
    planner.gap(at, pair.target.start);
    planner.tensor(pair);
    at = pair.target.end;
  }
  planner.gap(at, target.length);
  return planner.operations;
}

class Planner {
  readonly operations: Operation[] = [];
  readonly #base: Uint8Array;
  readonly #target: Uint8Array;
  readonly #index: BaseIndex;
  /** Behind what was used of the base last. */
  #expected = 0;

  constructor(
    base: Uint8Array,
    target: Uint8Array,
    gaps: readonly { readonly start: number; readonly end: number }[],
  ) {
    this.#base = base;
    this.#target = target;
    this.#index = new BaseIndex(base, gaps);
  }

  tensor({ target, base }: TensorPair): void {
    const bytes = target.end - target.start;
    if (!base) {
      this.#numbers(target.start, bytes, target, undefined);
      return;
    }
    const shared = Math.min(bytes, base.end - base.start);
    if (this.#equal(base.start, target.start, shared)) this.#copy(base.start, shared);
    else this.#numbers(target.start, shared, target, base.start);
    if (bytes > shared) this.#numbers(target.start + shared, bytes - shared, target, undefined);
  }

  /** Bytes that belong to no tensor: what follows in the base first, then whatever lies in it anywhere. */
  gap(start: number, end: number): void {
    let done = start;
    for (let at = start; at < end; ) {
      const near = this.#index.extend(this.#expected + at - done, this.#target, at, at, end);
      const match =
        near.bytes >= Math.min(NEAR_BYTES_MIN, end - at)
          ? near
          : this.#index.find(this.#target, at, done, end);
      if (!match) {
        at++;
        continue;
      }
      this.#text(match.at - done);
      this.#copy(match.from, match.bytes);
      at = match.at + match.bytes;
      done = at;
    }
    this.#text(end - done);
  }

  #numbers(
    at: number,
    bytes: number,
    tensor: { readonly element: number; readonly dims: readonly number[] },
    from: number | undefined,
  ): void {
    const { element } = tensor;
    const columns = element === LEVELS_KIND ? columnsOf(tensor.dims, bytes) : 1;
    const slopes =
      element === LEVELS_KIND && from !== undefined
        ? fitSlopes(this.#base, from, this.#target, at, bytes, columns)
        : undefined;
    this.operations.push({ kind: "numbers", element, from, bytes, columns, slopes });
    if (from !== undefined) this.#expected = from + bytes;
  }

  #copy(from: number, bytes: number): void {
    const before = this.operations.at(-1);
    this.#expected = from + bytes;
    if (before?.kind === "copy" && before.from + before.bytes === from) {
      this.operations[this.operations.length - 1] = { ...before, bytes: before.bytes + bytes };
    } else this.operations.push({ kind: "copy", from, bytes });
  }

  #text(bytes: number): void {
    if (bytes > 0) this.operations.push({ kind: "text", bytes });
  }

  #equal(from: number, at: number, bytes: number): boolean {
    for (let byte = 0; byte < bytes; byte++) {
      if (this.#base[from + byte] !== this.#target[at + byte]) return false;
    }
    return true;
  }
}

/** Numbers of one output channel where the first axis holds those; 1 where the tensor is a list. */
function columnsOf(dims: readonly number[], count: number): number {
  const columns = dims.slice(1).reduce((product, dim) => product * dim, 1);
  return columns >= 1 && columns <= Math.min(count, DELTA_LIMITS.columnsMax) ? columns : 1;
}

function gapsBetween(
  tensors: readonly { readonly start: number; readonly end: number }[],
  end: number,
): { start: number; end: number }[] {
  const gaps: { start: number; end: number }[] = [];
  let at = 0;
  for (const tensor of tensors) {
    if (tensor.start > at) gaps.push({ start: at, end: tensor.start });
    at = tensor.end;
  }
  if (end > at) gaps.push({ start: at, end });
  return gaps;
}
