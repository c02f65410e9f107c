import type { NumberRange } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";

/** Hands out blocks of prediction numbers over all lanes of one boot. */
export class NumberBlocks {
  #nextBlock: number;

  constructor(nextBlock: number) {
    this.#nextBlock = nextBlock;
  }

  take(): NumberRange {
    const next = this.#nextBlock++ * AGENT_LIMITS.predictionBlock;
    return { next, end: next + AGENT_LIMITS.predictionBlock };
  }
}

/**
 * The numbers of one lane. They follow on within a block, and over its end where no other lane reserved one meanwhile: with one lane
 * all numbers of a boot follow on.
 */
export class LaneNumbers {
  readonly #blocks: NumberBlocks;
  #next: number;
  #end: number;

  constructor(blocks: NumberBlocks, from: NumberRange) {
    this.#blocks = blocks;
    this.#next = from.next;
    this.#end = from.end;
  }

  take(): number {
    if (this.#next >= this.#end) ({ next: this.#next, end: this.#end } = this.#blocks.take());
    return this.#next++;
  }
}
