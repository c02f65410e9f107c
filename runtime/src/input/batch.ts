import type { ModelInput } from "@fieldloop/protocol";
import type { Session, Tensor, TensorData, TensorInfo } from "../backend.js";
import { newElements } from "../package/tensor-bytes.js";

type Tensors = Readonly<Record<string, Tensor>>;

/** Largest difference between an item run in a batch and run alone: a wrong axis differs by far more, the order of sums by less. */
const DIFFERENCE_MAX = 1e-3;

/**
 * Several prepared frames as one run: their tensors one after the other along the first dimension, the outputs cut again.
 * A graph may claim a dynamic batch and still mix its items (a reshape to one row, statistics over the batch, quantization
 * by the range of all), so the first batch is preceded by a trial: two unlike items together and alone.
 */
export class BatchRunner {
  readonly #session: Session;
  readonly #fetches: readonly string[] | undefined;
  /** Inputs along which frames are stacked; the others are the same for all. */
  readonly #stacked: ReadonlySet<string>;
  #verdict: "unknown" | "proven" | "refused";

  constructor(session: Session, inputs: readonly ModelInput[], fetches: readonly string[] | undefined) {
    this.#session = session;
    this.#fetches = fetches;
    const byName = new Map(session.inputs.map((info) => [info.name, info]));
    const isDynamic = (input: ModelInput): boolean => hasDynamicBatch(byName.get(input.name));
    this.#stacked = new Set(inputs.filter(isDynamic).map(({ name }) => name));
    const fed = inputs.filter(({ kind }) => kind !== "constant" && kind !== "state");
    const outputs = session.outputs.filter(({ name }) => fetches?.includes(name) ?? true);
    const possible = fed.length > 0 && fed.every(isDynamic) && outputs.every(hasDynamicBatch);
    this.#verdict = possible ? "unknown" : "refused";
  }

  get possible(): boolean {
    return this.#verdict !== "refused";
  }

  get proven(): boolean {
    return this.#verdict === "proven";
  }

  /**
   * @returns the outputs of each item; undefined where items do not fit together, the trial or the run fails, or an output
   * has another batch
   */
  async run(items: readonly Tensors[]): Promise<Record<string, Tensor>[] | undefined> {
    if (this.#verdict === "unknown" && this.#stack(items) === undefined) return undefined;
    if (this.#verdict === "unknown") {
      const first = items[0]!;
      const other = [this.#unlike(first), ...items.slice(1)].find((item) => !this.#isSame(first, item));
      // Black images, silence: of equal items nothing tells whether they influence each other. A later batch will.
      if (other === undefined) return undefined;
      this.#verdict = (await this.#isProvenBy([first, other])) ? "proven" : "refused";
    }
    return this.#verdict === "proven" ? this.#runStacked(items) : undefined;
  }

  async #isProvenBy(items: readonly Tensors[]): Promise<boolean> {
    const together = await this.#runStacked(items);
    if (together === undefined) return false;
    for (const [at, item] of items.entries()) {
      const alone = await this.#session.run(item, this.#fetches).catch(() => undefined);
      if (alone === undefined) return false;
      if (!Object.keys(alone).every((name) => agree(alone[name], together[at]![name]))) return false;
    }
    return true;
  }

  async #runStacked(items: readonly Tensors[]): Promise<Record<string, Tensor>[] | undefined> {
    const feeds = this.#stack(items);
    if (feeds === undefined) return undefined;
    let outputs: Record<string, Tensor>;
    try {
      outputs = await this.#session.run(feeds, this.#fetches);
    } catch {
      // Which frame it was shows when each is run alone; the caller does that.
      return undefined;
    }
    const results = items.map((): Record<string, Tensor> => ({}));
    for (const [name, tensor] of Object.entries(outputs)) {
      if (tensor.dims[0] !== items.length) return undefined;
      const dims = [1, ...tensor.dims.slice(1)];
      const size = tensor.data.length / items.length;
      results.forEach((result, at) => {
        result[name] = { type: tensor.type, dims, data: cut(tensor.data, at * size, (at + 1) * size) };
      });
    }
    return results;
  }

  /** The values of an item in reverse order, floats twice as large: valid wherever the item was, and of another range. */
  #unlike(feeds: Tensors): Tensors {
    const entries = Object.entries(feeds).map(([name, tensor]): [string, Tensor] => {
      if (!this.#stacked.has(name)) return [name, tensor];
      const data = tensor.data.slice().reverse() as TensorData;
      if (data instanceof Float32Array || data instanceof Float64Array) {
        for (let at = 0; at < data.length; at++) data[at]! *= 2;
      }
      return [name, { ...tensor, data }];
    });
    return Object.fromEntries(entries);
  }

  #isSame(one: Tensors, other: Tensors): boolean {
    return [...this.#stacked].every((name) => {
      const [a, b] = [one[name]?.data ?? [], other[name]?.data ?? []];
      return a.length === b.length && a.every((value: unknown, at: number) => value === b[at]);
    });
  }

  #stack(items: readonly Tensors[]): Record<string, Tensor> | undefined {
    const feeds: Record<string, Tensor> = {};
    for (const [name, first] of Object.entries(items[0]!)) {
      if (!this.#stacked.has(name)) {
        feeds[name] = first;
        continue;
      }
      const tensors = items.map((item) => item[name]);
      if (first.dims[0] !== 1 || !tensors.every((tensor) => isAlike(first, tensor))) return undefined;
      feeds[name] = {
        type: first.type,
        dims: [items.length, ...first.dims.slice(1)],
        data: join(first, tensors as Tensor[]),
      };
    }
    return feeds;
  }
}

/** A first dimension that is a name, or nothing (-1, or an empty name). */
function hasDynamicBatch(info: TensorInfo | undefined): boolean {
  const first = info?.dims[0];
  return typeof first === "string" || (first !== undefined && first < 0);
}

function isAlike(first: Tensor, other: Tensor | undefined): boolean {
  return (
    other !== undefined &&
    other.type === first.type &&
    other.dims.length === first.dims.length &&
    other.dims.every((size, at) => size === first.dims[at])
  );
}

function join(first: Tensor, tensors: readonly Tensor[]): TensorData {
  if (first.type === "string") return tensors.flatMap(({ data }) => data as string[]);
  const size = first.data.length;
  const joined = newElements(first.type, size * tensors.length);
  // One element type for all of them, which the compiler cannot see.
  tensors.forEach(({ data }, at) => (joined as Float32Array).set(data as Float32Array, at * size));
  return joined;
}

function cut(data: TensorData, from: number, to: number): TensorData {
  return Array.isArray(data) ? data.slice(from, to) : data.subarray(from, to);
}

function agree(alone: Tensor | undefined, together: Tensor | undefined): boolean {
  if (alone === undefined || together === undefined || !isAlike(alone, together)) return false;
  for (let at = 0; at < alone.data.length; at++) {
    const one = alone.data[at]!;
    const other = together.data[at]!;
    if (one === other) continue;
    if (typeof one === "string") return false;
    const a = Number(one);
    const b = Number(other);
    if (Number.isNaN(a) && Number.isNaN(b)) continue;
    if (!(Math.abs(a - b) <= DIFFERENCE_MAX * (1 + Math.abs(a)))) return false;
  }
  return true;
}
