import { FieldloopError } from "@fieldloop/protocol";
import type { NumberRange } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";

const BLOCK = AGENT_LIMITS.predictionBlock;

/**
 * Which prediction numbers of this boot are used. Lanes take them in blocks; what a lane has left of its block stays its own when the
 * host is started anew. A block that a host reserved and said nothing of before it died is never used.
 */
export class PredictionNumbers {
  readonly #open = new Map<string, NumberRange>();
  readonly #unused = new Set<number>();
  #nextBlock = 0;
  #count = 0;

  /** How many predictions were numbered. */
  get count(): number {
    return this.#count;
  }
  /** The first block that was never reserved. */
  get nextBlock(): number {
    return this.#nextBlock;
  }

  /** What the lane has left of its block. */
  rangeOf(lane: string): NumberRange {
    return this.#open.get(lane) ?? { next: 0, end: 0 };
  }

  /**
   * A lane of the host used `count` numbers from `firstN` on; `firstN` goes on where the lane stopped, or begins a block.
   * @throws FieldloopError `internal` where it does neither: then nothing is taken
   */
  use(lane: string, firstN: number, count: number): void {
    const range = this.rangeOf(lane);
    const left = range.end - range.next;
    if (left > 0 && firstN !== range.next) throw wrong(lane, firstN, `${range.next}`);
    const inBlock = Math.min(left, count);
    // What is over the end of its block goes on in a fresh one.
    const fresh = count - inBlock;
    const freshN = firstN + inBlock;
    if (fresh > BLOCK) throw wrong(lane, firstN, `at most ${BLOCK} at once`);
    if (fresh > 0) this.#reserve(lane, freshN);
    const end = fresh > 0 ? freshN + BLOCK : range.end;
    this.#open.set(lane, { next: firstN + count, end });
    this.#count += count;
  }

  /** True where prediction `n` of this boot exists. */
  has(n: number): boolean {
    const block = Math.floor(n / BLOCK);
    if (n < 0 || block >= this.#nextBlock || this.#unused.has(block)) return false;
    for (const { next, end } of this.#open.values()) if (n >= end - BLOCK && n < end) return n < next;
    return true;
  }

  /** Blocks come in another order than they were reserved: another lane may speak first. */
  #reserve(lane: string, firstN: number): void {
    const block = firstN / BLOCK;
    if (!Number.isInteger(block)) throw wrong(lane, firstN, "the begin of a block");
    if (block >= this.#nextBlock + AGENT_LIMITS.lanesMax) throw wrong(lane, firstN, "the next block");
    if (block < this.#nextBlock) {
      if (!this.#unused.delete(block)) throw wrong(lane, firstN, "a block that is free");
      return;
    }
    for (let before = this.#nextBlock; before < block; before++) this.#unused.add(before);
    this.#nextBlock = block + 1;
  }
}

function wrong(lane: string, firstN: number, wanted: string): FieldloopError {
  return new FieldloopError(
    "internal",
    `Number predictions: the host's lane "${lane}" began at ${firstN}, wanted ${wanted}`,
  );
}
