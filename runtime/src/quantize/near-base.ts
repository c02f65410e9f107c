import { roundHalfEven } from "./numeric.js";
import type { GroupStatistics, InputStatistics } from "./input-statistics.js";

/** A weight as a matrix [rows, columns], in steps of its scales: what its levels are to stand for, and what they were before. */
export interface LevelsRequest {
  readonly rows: number;
  readonly columns: number;
  /** weight / scale, row-major. */
  readonly exact: Float64Array;
  /** Old levels in steps of the new scales, row-major. */
  readonly old: Int16Array;
  /** Of a row. */
  readonly scales: Float32Array;
  readonly statistics: InputStatistics;
  /** Levels lie within -levelMax..levelMax. */
  readonly levelMax: number;
  /**
   * What a bit on the wire is worth: as much as this many mean squared errors of one step in one column, in what the layer writes. 0 only
   * rounds so that errors cancel.
   */
  readonly changeCost: number;
  /** The layer has a bias, which takes up the mean of the errors. */
  readonly hasBias: boolean;
}

export interface ChosenLevels {
  readonly levels: Int16Array;
  /** By how many steps each row is off in the mean over the calibration inputs: what its bias has to take back. */
  readonly meanErrors: Float64Array;
}

/** How a stored weight stays near that of an earlier version. */
export interface NearBase {
  /** Its levels there, in the order of the tensor. */
  readonly levels: Int8Array;
  readonly statistics: InputStatistics;
  /** Axis of the weight along which its outputs lie: 0, or 1 for what is stored [columns, outputs]. */
  readonly outputAxis: 0 | 1;
  readonly changeCost: number;
  readonly hasBias: boolean;
}

export interface NearWeight extends NearBase {
  readonly data: Float32Array;
  /** One for each output, or a single one. */
  readonly scales: Float32Array;
  readonly baseScales: readonly number[];
  readonly levelMax: number;
}

/** Added to the diagonal, as a share of its mean (Frantar et al. 2023, "GPTQ"): columns that hardly vary do not run away. */
const DAMPING = 0.01;
const SWEEPS_MAX = 6;
/** Bits of a difference before any is known: the first pass, of which the counts give those of the second. */
const PRIOR_SHARES = [0.8, 0.16, 0.02] as const;

/**
 * Chooses the levels of a weight beside those of an earlier version: of all levels, those that make the sum of the squared error of what the
 * layer writes, over the calibration inputs, and of the bits that their differences take small (entropy-constrained quantization, Chou,
 * Lookabaugh and Gray 1989). Errors are measured through the covariance of the layer's inputs, so that many small moves of a fine-tuning
 * are carried by few levels that change, where keeping each level within some steps would undo them. Coordinate descent from the old
 * levels: each step changes the level that lowers the sum, until none does.
 */
export function levelsNear(request: LevelsRequest): ChosenLevels {
  const { rows, old, levelMax } = request;
  const groups = request.statistics.groups.map((group) => prepareGroup(group, request.hasBias));
  const levels = old.map((level) => Math.max(-levelMax, Math.min(levelMax, level)));
  const rowsPerGroup = rows / groups.length;
  const unit = meanEnergy(groups) * meanSquare(request.scales);
  let bits = priorBits(levelMax);
  for (const pass of [0, 1]) {
    if (pass === 1) bits = countedBits(old, levels, levelMax);
    const descent = new Descent(request, levels, bits, request.changeCost * unit);
    for (let row = 0; row < rows; row++) descent.row(row, groups[Math.floor(row / rowsPerGroup)]!);
  }
  return { levels, meanErrors: meanErrorsOf(request, levels) };
}

/** As {@link levelsNear}, for a weight as its tensor lies; mean errors in units of what the layer writes. */
export function weightNear(weight: NearWeight): {
  readonly levels: Int16Array;
  readonly meanErrors: Float64Array;
} {
  const { data, scales, baseScales, levelMax, outputAxis, statistics, changeCost, hasBias } = weight;
  const { columns } = statistics;
  const rows = data.length / columns;
  const exact = new Float64Array(data.length);
  const old = new Int16Array(data.length);
  const placeOf = (row: number, column: number): number =>
    outputAxis === 0 ? row * columns + column : column * rows + row;
  const scaleOf = (row: number): number => scales[scales.length === 1 ? 0 : row]!;
  for (let row = 0; row < rows; row++) {
    const scale = scaleOf(row);
    const ratio = baseScales[scales.length === 1 ? 0 : row]! / scale;
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column;
      const from = placeOf(row, column);
      exact[at] = data[from]! / scale;
      old[at] = Math.max(-levelMax, Math.min(levelMax, roundHalfEven(weight.levels[from]! * ratio)));
    }
  }
  const chosen = levelsNear({ rows, columns, exact, old, scales, statistics, levelMax, changeCost, hasBias });
  const levels = new Int16Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      levels[placeOf(row, column)] = chosen.levels[row * columns + column]!;
    }
  }
  return { levels, meanErrors: chosen.meanErrors.map((error, row) => error * scaleOf(row)) };
}

interface PreparedBlock {
  readonly begin: number;
  readonly length: number;
  readonly moments: Float64Array;
}

/** With a bias the covariance alone counts; without one the mean is an error like any other. */
function prepareGroup({ mean, blocks }: GroupStatistics, hasBias: boolean): readonly PreparedBlock[] {
  return blocks.map(({ begin, length, covariance }) => {
    const moments = covariance.slice();
    if (!hasBias) {
      for (let i = 0; i < length; i++) {
        for (let j = 0; j < length; j++) moments[i * length + j]! += mean[begin + i]! * mean[begin + j]!;
      }
    }
    let trace = 0;
    for (let i = 0; i < length; i++) trace += moments[i * (length + 1)]!;
    const damping = (DAMPING * trace) / length;
    for (let i = 0; i < length; i++) moments[i * (length + 1)]! += damping;
    return { begin, length, moments };
  });
}

function meanEnergy(groups: readonly (readonly PreparedBlock[])[]): number {
  let sum = 0;
  let count = 0;
  for (const { length, moments } of groups.flat()) {
    for (let i = 0; i < length; i++) sum += moments[i * (length + 1)]!;
    count += length;
  }
  return sum / Math.max(1, count);
}

function meanSquare(values: Float32Array): number {
  return values.reduce((sum, value) => sum + value * value, 0) / values.length;
}

/** Bits by the size of a difference, 0..2 * levelMax. */
function priorBits(levelMax: number): Float64Array {
  const last = PRIOR_SHARES.length - 1;
  return Float64Array.from(
    { length: 2 * levelMax + 1 },
    (_, size) =>
      (size > 0 ? 1 : 0) - Math.log2(PRIOR_SHARES[Math.min(size, last)]!) + Math.max(0, size - last),
  );
}

/** Order-0 entropy of the differences as they are: a size with its sign. */
function countedBits(old: Int16Array, levels: Int16Array, levelMax: number): Float64Array {
  const counts = new Float64Array(2 * levelMax + 1).fill(0.5);
  for (const [at, level] of levels.entries()) {
    counts[Math.min(Math.abs(level - old[at]!), 2 * levelMax)]!++;
  }
  const total = counts.reduce((a, b) => a + b, 0);
  return counts.map((count, size) => (size > 0 ? 1 : 0) - Math.log2(count / total));
}

class Descent {
  readonly #request: LevelsRequest;
  readonly #levels: Int16Array;
  readonly #bits: Float64Array;
  /** Squared error of the output that one bit is worth. */
  readonly #perBit: number;

  constructor(request: LevelsRequest, levels: Int16Array, bits: Float64Array, perBit: number) {
    this.#request = request;
    this.#levels = levels;
    this.#bits = bits;
    this.#perBit = perBit;
  }

  row(row: number, blocks: readonly PreparedBlock[]): void {
    const { columns, scales } = this.#request;
    const scale = scales[scales.length === 1 ? 0 : row]!;
    for (const block of blocks) this.#block(row * columns + block.begin, block, this.#perBit / scale ** 2);
  }

  /** `perBit` in squared steps of this row. */
  #block(from: number, { length, moments }: PreparedBlock, perBit: number): void {
    const { exact } = this.#request;
    const levels = this.#levels;
    // Half the slope of the squared error along each level.
    const slope = new Float64Array(length);
    for (let j = 0; j < length; j++) {
      const error = levels[from + j]! - exact[from + j]!;
      const line = j * length;
      for (let i = 0; i < length; i++) slope[i]! += moments[line + i]! * error;
    }
    for (let sweep = 0; sweep < SWEEPS_MAX; sweep++) {
      let moved = false;
      for (let j = 0; j < length; j++) {
        const move = this.#bestMove(from + j, moments[j * (length + 1)]!, slope[j]!, perBit);
        if (move === 0) continue;
        moved = true;
        levels[from + j]! += move;
        const line = j * length;
        for (let i = 0; i < length; i++) slope[i]! += move * moments[line + i]!;
      }
      if (!moved) return;
    }
  }

  #bestMove(at: number, energy: number, slope: number, perBit: number): number {
    const { old, levelMax } = this.#request;
    const level = this.#levels[at]!;
    const before = old[at]!;
    const last = this.#bits.length - 1;
    const bitsOf = (candidate: number): number => this.#bits[Math.min(last, Math.abs(candidate - before))]!;
    const clamp = (candidate: number): number => Math.max(-levelMax, Math.min(levelMax, candidate));
    const paid = bitsOf(level);
    let best = 0;
    let gain = 1e-9 * perBit;
    const consider = (candidate: number): void => {
      const move = candidate - level;
      if (move === 0) return;
      const saved = perBit * (paid - bitsOf(candidate)) - move * (energy * move + 2 * slope);
      if (saved > gain) {
        gain = saved;
        best = move;
      }
    };
    const nearest = clamp(energy > 0 ? roundHalfEven(level - slope / energy) : before);
    consider(nearest);
    if (nearest !== before) consider(nearest + Math.sign(before - nearest));
    consider(clamp(before));
    return best;
  }
}

function meanErrorsOf(
  { rows, columns, exact, statistics: { groups } }: LevelsRequest,
  levels: Int16Array,
): Float64Array {
  const rowsPerGroup = rows / groups.length;
  return Float64Array.from({ length: rows }, (_, row) => {
    const { mean } = groups[Math.floor(row / rowsPerGroup)]!;
    let sum = 0;
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column;
      sum += (levels[at]! - exact[at]!) * mean[column]!;
    }
    return sum;
  });
}
