import { ELEMENT_KINDS, LEVELS_KIND } from "./elements.js";
import { LevelCoder, LevelModels } from "./levels.js";
import { DELTA_LIMITS } from "./limits.js";
import type { NumbersOperation } from "./operations.js";
import type { BitCoder } from "./range-coder.js";
import { WideCoder, WideModels } from "./wide.js";

/** Room for one chunk of numbers of the base and of the target, aligned for any of their types. */
export class NumberChunk {
  readonly base = new Uint8Array(DELTA_LIMITS.chunkBytes);
  readonly target = new Uint8Array(DELTA_LIMITS.chunkBytes);
}

/** Codes the tensors of one file; the models of each kind of element are shared by all of them. */
export class NumbersCoder {
  readonly #levels = new LevelModels();
  readonly #wide = new Map<number, WideModels>();
  readonly #chunk: NumberChunk;

  constructor(chunk: NumberChunk) {
    this.#chunk = chunk;
  }

  /** A function that codes the next `bytes` of the tensor, which lie at the beginning of the chunk. */
  open(operation: NumbersOperation): (coder: BitCoder, bytes: number) => void {
    const { element, columns, slopes } = operation;
    const { base, target } = this.#chunk;
    if (element === LEVELS_KIND) {
      const levels = new LevelCoder(this.#levels, columns, slopes);
      const [old, now] = [new Int8Array(base.buffer), new Int8Array(target.buffer)];
      return (coder, bytes) => levels.code(coder, old, now, bytes);
    }
    const { bytes: size, float } = ELEMENT_KINDS[element]!;
    const wide = new WideCoder(this.#modelsOf(element), size === 4 ? 32 : 16, float);
    const Numbers = size === 4 ? Uint32Array : Uint16Array;
    const [old, now] = [new Numbers(base.buffer), new Numbers(target.buffer)];
    return (coder, bytes) => wide.code(coder, old, now, bytes / size);
  }

  #modelsOf(element: number): WideModels {
    let models = this.#wide.get(element);
    if (!models) this.#wide.set(element, (models = new WideModels()));
    return models;
  }
}
