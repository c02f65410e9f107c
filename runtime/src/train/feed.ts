import { FieldloopError } from "@fieldloop/protocol";
import { Random } from "../simulate/random.js";

/** Rows in memory. `labels` for cross-entropy, `targets` for anything else; without either, a row is its own target. */
export interface TrainingRows {
  /** [count, ...row], row-major; bytes are read as they are, 0..255. */
  readonly inputs: Float32Array | Uint8Array;
  /** Class index of each row. */
  readonly labels?: ArrayLike<number>;
  /** [count, target size]. */
  readonly targets?: Float32Array;
  /** Weight of each row in the loss; 1 when absent. */
  readonly weights?: ArrayLike<number>;
}

/** Rows made on demand: must be a pure function of `step`, or a resumed run differs from a straight one. */
export interface TrainingStream {
  readonly stepsPerEpoch: number;
  /** At most `count` rows. */
  next(step: number, count: number): TrainingRows | Promise<TrainingRows>;
}

export type TrainingData = TrainingRows | TrainingStream;

/** Changes one row in place, new or replayed, e.g. shifts an image; `random` depends only on (seed, step, row). */
export type Augment = (row: Float32Array, random: Random) => void;

/** One step's tensors, always `batch` rows; those that are missing weigh 0. */
export interface Batch {
  readonly inputs: Float32Array;
  readonly targets: Float32Array;
  /** [batch], sums to 1 (or all 0). */
  readonly weights: Float32Array;
}

export interface FeedOptions {
  readonly data: TrainingData;
  readonly replay?: TrainingData | undefined;
  readonly replayShare: number;
  readonly batch: number;
  readonly rowSize: number;
  readonly targetSize: number;
  readonly labelSmoothing: number;
  readonly seed: number;
  readonly augment?: Augment | undefined;
}

const ORDER_STREAM = 1;
const REPLAY_STREAM = 2;
const AUGMENT_STREAM = 3;

/** Order of `count` rows in one pass: a pure function of its arguments (Fisher and Yates over a seeded stream). */
export function epochOrder(count: number, seed: number, epoch: number, stream = ORDER_STREAM): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  return new Random(seed, stream, epoch).shuffle(order);
}

/** Makes the batch of any step from (seed, step) alone: that is what makes a resumed run equal to a straight one. */
export class Feed {
  readonly stepsPerEpoch: number;
  readonly #options: FeedOptions;
  readonly #newRows: number;
  readonly #orders = new Map<string, Uint32Array>();

  constructor(options: FeedOptions) {
    this.#options = options;
    const replayRows = options.replay
      ? Math.min(options.batch - 1, Math.round(options.batch * options.replayShare))
      : 0;
    this.#newRows = options.batch - replayRows;
    for (const data of [options.data, options.replay]) if (data && !isStream(data)) rowCount(data, options);
    this.stepsPerEpoch = isStream(options.data)
      ? options.data.stepsPerEpoch
      : Math.ceil(rowCount(options.data, options) / this.#newRows);
  }

  async batchAt(step: number): Promise<Batch> {
    const { batch, rowSize, targetSize, data, replay } = this.#options;
    const made: Batch = {
      inputs: new Float32Array(batch * rowSize),
      targets: new Float32Array(batch * targetSize),
      weights: new Float32Array(batch),
    };
    await this.#fill(made, 0, this.#newRows, data, step, ORDER_STREAM);
    if (replay) await this.#fill(made, this.#newRows, batch - this.#newRows, replay, step, REPLAY_STREAM);
    const sum = made.weights.reduce((total, weight) => total + weight, 0);
    if (sum > 0) for (let row = 0; row < batch; row++) made.weights[row] = made.weights[row]! / sum;
    return made;
  }

  async #fill(
    made: Batch,
    at: number,
    count: number,
    data: TrainingData,
    step: number,
    stream: number,
  ): Promise<void> {
    if (isStream(data)) {
      const rows = await data.next(step, count);
      const given = Math.min(count, rowCount(rows, this.#options));
      for (let row = 0; row < given; row++) this.#copyRow(made, at + row, rows, row, step);
      return;
    }
    const total = rowCount(data, this.#options);
    for (let row = 0; row < count; row++) {
      const index =
        stream === ORDER_STREAM
          ? this.#passIndex(total, count, step, row)
          : this.#cycleIndex(total, count, step, row);
      if (index !== undefined) this.#copyRow(made, at + row, data, index, step);
    }
  }

  /** New data: whole passes; the last batch of a pass may be short. */
  #passIndex(total: number, count: number, step: number, row: number): number | undefined {
    const position = (step % this.stepsPerEpoch) * count + row;
    if (position >= total) return undefined;
    return this.#order(total, Math.floor(step / this.stepsPerEpoch), ORDER_STREAM)[position];
  }

  /** Replayed data: an endless stream of shuffled passes, so every batch has its full share. */
  #cycleIndex(total: number, count: number, step: number, row: number): number | undefined {
    const position = step * count + row;
    return this.#order(total, Math.floor(position / total), REPLAY_STREAM)[position % total];
  }

  #order(total: number, epoch: number, stream: number): Uint32Array {
    const key = `${stream}/${epoch}`;
    let order = this.#orders.get(key);
    if (!order) {
      // A batch touches at most a few passes: keep the newest ones.
      if (this.#orders.size >= 8) this.#orders.delete(this.#orders.keys().next().value!);
      order = epochOrder(total, this.#options.seed, epoch, stream);
      this.#orders.set(key, order);
    }
    return order;
  }

  #copyRow(made: Batch, to: number, rows: TrainingRows, from: number, step: number): void {
    const { rowSize, targetSize, labelSmoothing, augment, seed } = this.#options;
    const input = made.inputs.subarray(to * rowSize, (to + 1) * rowSize);
    const target = made.targets.subarray(to * targetSize, (to + 1) * targetSize);
    input.set(rows.inputs.subarray(from * rowSize, (from + 1) * rowSize));
    if (rows.labels) {
      target.fill(labelSmoothing / targetSize);
      target[rows.labels[from]!]! += 1 - labelSmoothing;
    } else if (rows.targets) {
      target.set(rows.targets.subarray(from * targetSize, (from + 1) * targetSize));
    } else {
      // The clean row: with an augmentation that adds noise, this trains a denoising autoencoder.
      target.set(input);
    }
    made.weights[to] = rows.weights ? rows.weights[from]! : 1;
    augment?.(input, new Random(seed, AUGMENT_STREAM, step, to));
  }
}

function isStream(data: TrainingData): data is TrainingStream {
  return "next" in data;
}

/** Number of rows, after checking that the arrays agree. Throws `invalid_argument`, or `training_no_labels` when empty. */
export function rowCount(
  rows: TrainingRows,
  shape: { readonly rowSize: number; readonly targetSize: number },
): number {
  const count = rows.inputs.length / shape.rowSize;
  const wrong = (what: string) => new FieldloopError("invalid_argument", `Feed training data: ${what}`);
  if (!Number.isInteger(count)) {
    throw wrong(`${rows.inputs.length} input numbers are no multiple of the row size ${shape.rowSize}`);
  }
  if (count === 0) throw new FieldloopError("training_no_labels", "Feed training data: there are no rows");
  if (rows.labels) {
    if (rows.labels.length !== count) throw wrong(`${rows.labels.length} labels for ${count} rows`);
    for (let row = 0; row < count; row++) {
      const label = rows.labels[row]!;
      if (!Number.isInteger(label) || label < 0 || label >= shape.targetSize) {
        throw wrong(`label ${label} of row ${row} is not a class index below ${shape.targetSize}`);
      }
    }
  } else if (
    rows.targets ? rows.targets.length !== count * shape.targetSize : shape.rowSize !== shape.targetSize
  ) {
    const given = rows.targets ? `${rows.targets.length} target numbers` : "no targets";
    throw wrong(`${given} for ${count} rows of target size ${shape.targetSize}`);
  }
  if (rows.weights && rows.weights.length !== count)
    throw wrong(`${rows.weights.length} weights for ${count} rows`);
  return count;
}

/** Row weights that give every class the same sum, with mean 1. */
export function balancedWeights(labels: ArrayLike<number>, classCount: number): Float32Array {
  const counts = new Float64Array(classCount);
  for (let row = 0; row < labels.length; row++) counts[labels[row]!]!++;
  const present = counts.filter((count) => count > 0).length;
  return Float32Array.from(labels, (label) => labels.length / (present * counts[label]!));
}
