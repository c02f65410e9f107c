import type { Tensor } from "../backend.js";
import type { NodeProto } from "../onnx/generated/onnx_pb.js";
import { intAttribute, intsAttribute, stringAttribute } from "../onnx/graph.js";
import { elementCount } from "../onnx/tensor.js";
import { resolveWindow } from "../onnx/window.js";
import { QUANTIZE_LIMITS } from "./limits.js";

/** A stretch of a weight's columns of which the covariances among each other are known. */
export interface ColumnBlock {
  readonly begin: number;
  readonly length: number;
  /** [length, length], row-major and symmetric. */
  readonly covariance: Float64Array;
}

/** What the columns of one group of a weight's rows are multiplied with, over the calibration inputs. */
export interface GroupStatistics {
  readonly mean: Float64Array;
  readonly blocks: readonly ColumnBlock[];
}

/**
 * Second moments of what a product reads. Its weight is seen as a matrix [outputs, columns]: the columns of a Conv are input channel and
 * place in the kernel, its padding counted as the zeros that it is; those of Gemm and MatMul are what it sums over. A Conv with groups has
 * one entry for each of them.
 */
export interface InputStatistics {
  readonly columns: number;
  readonly groups: readonly GroupStatistics[];
}

/** Rows added to the sums in one go: fewer passes over a matrix that is larger than the cache. */
const ROWS_AT_ONCE = 4;
/** Places of one input (of one group) that are looked at, and after how many inputs they become half as many. */
const PLACES_PER_INPUT = 32;
const INPUTS_BEFORE_HALVING = 256;
/** Where the places of an input lie: multiples of the golden ratio, so that they spread whatever their number. */
const SPREAD = 0.618_033_988_749_895;

/** Columns of a block where all covariances together may take `bytesMax`: fewer where a network has many columns, 1 at least. */
export function blockLengthFor(
  weights: readonly { readonly columns: number; readonly groups: number }[],
): number {
  let length: number = QUANTIZE_LIMITS.covarianceColumnsMax;
  const bytes = (): number =>
    weights.reduce((sum, { columns, groups }) => sum + groups * columns * Math.min(columns, length) * 8, 0);
  while (length > 1 && bytes() > QUANTIZE_LIMITS.covarianceBytesMax) length >>= 1;
  return length;
}

/** Columns and groups of a node's weight [..dims]. */
export function weightShape(
  node: NodeProto,
  dims: readonly number[],
): { readonly columns: number; readonly groups: number } {
  if (node.opType === "Conv") {
    return { columns: elementCount(dims.slice(1)), groups: intAttribute(node, "group", 1) };
  }
  const isTransposed = node.opType === "Gemm" && intAttribute(node, "transB", 0) !== 0;
  return { columns: dims[isTransposed ? 1 : 0]!, groups: 1 };
}

/** Gathers {@link InputStatistics} of one Conv, Gemm or MatMul from its input, batch by batch. */
export class InputObserver {
  readonly #node: NodeProto;
  readonly #dims: readonly number[];
  readonly #columns: number;
  readonly #groups: readonly GroupSums[];
  #inputs = 0;
  #placed = 0;

  constructor(node: NodeProto, dims: readonly number[], blockLength: number) {
    this.#node = node;
    this.#dims = dims;
    const { columns, groups } = weightShape(node, dims);
    this.#columns = columns;
    this.#groups = Array.from({ length: groups }, () => new GroupSums(columns, blockLength));
  }

  observe({ data, dims }: Tensor): void {
    if (!(data instanceof Float32Array) || data.length === 0) return;
    const places = Math.max(1, PLACES_PER_INPUT >> Math.floor(this.#inputs / INPUTS_BEFORE_HALVING));
    if (this.#node.opType === "Conv") this.#observeImages(data, dims, places);
    else this.#observeRows(data, places);
  }

  /** Undefined where nothing was observed. */
  statistics(): InputStatistics | undefined {
    if (this.#inputs === 0) return undefined;
    return { columns: this.#columns, groups: this.#groups.map((sums) => sums.finish()) };
  }

  #observeRows(data: Float32Array, places: number): void {
    const rows = Math.floor(data.length / this.#columns);
    const [sums] = this.#groups as [GroupSums];
    this.#inputs++;
    for (let taken = 0; taken < Math.min(rows, places); taken++) {
      const row = rows <= places ? taken : this.#place(rows);
      sums.row().set(data.subarray(row * this.#columns, (row + 1) * this.#columns));
      sums.added();
    }
  }

  #observeImages(data: Float32Array, dims: readonly number[], places: number): void {
    const [count = 0, channels = 0, ...spatial] = dims;
    const kernel = this.#dims.slice(2);
    const { stride, dilation, padBegin, padEnd } = resolveWindow(
      {
        strides: intsAttribute(this.#node, "strides"),
        dilations: intsAttribute(this.#node, "dilations"),
        pads: intsAttribute(this.#node, "pads"),
        autoPad: stringAttribute(this.#node, "auto_pad", "NOTSET"),
      },
      spatial,
      kernel,
    );
    const outputs = spatial.map((size, axis) => {
      const span = size + padBegin[axis]! + padEnd[axis]! - dilation[axis]! * (kernel[axis]! - 1) - 1;
      return Math.floor(span / stride[axis]!) + 1;
    });
    const total = elementCount(outputs);
    const area = elementCount(spatial);
    const own = this.#dims[1]!;
    const taps = elementCount(kernel);
    const offsets = new Int32Array(taps);
    for (let image = 0; image < count; image++) {
      this.#inputs++;
      for (let taken = 0; taken < Math.min(total, places); taken++) {
        const place = total <= places ? taken : this.#place(total);
        const begin = coordinates(place, outputs).map((at, axis) => at * stride[axis]! - padBegin[axis]!);
        for (let tap = 0; tap < taps; tap++) {
          offsets[tap] = offsetOf(coordinates(tap, kernel), begin, dilation, spatial);
        }
        for (const [group, sums] of this.#groups.entries()) {
          const row = sums.row();
          for (let channel = 0; channel < own; channel++) {
            const plane = (image * channels + group * own + channel) * area;
            for (let tap = 0; tap < taps; tap++) {
              const offset = offsets[tap]!;
              row[channel * taps + tap] = offset < 0 ? 0 : data[plane + offset]!;
            }
          }
          sums.added();
        }
      }
    }
  }

  #place(total: number): number {
    return Math.floor(((++this.#placed * SPREAD) % 1) * total);
  }
}

/** Row-major coordinates of a flat index. */
function coordinates(index: number, dims: readonly number[]): number[] {
  const found = new Array<number>(dims.length);
  let rest = index;
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    found[axis] = rest % dims[axis]!;
    rest = Math.floor(rest / dims[axis]!);
  }
  return found;
}

/** Where a tap of the kernel reads in a plane; -1 in the padding. */
function offsetOf(
  tap: readonly number[],
  begin: readonly number[],
  dilation: readonly number[],
  spatial: readonly number[],
): number {
  let offset = 0;
  for (const [axis, size] of spatial.entries()) {
    const at = begin[axis]! + tap[axis]! * dilation[axis]!;
    if (at < 0 || at >= size) return -1;
    offset = offset * size + at;
  }
  return offset;
}

/** Sums and sums of products of the columns of one group. */
class GroupSums {
  readonly #columns: number;
  readonly #sums: Float64Array;
  readonly #blocks: readonly ColumnBlock[];
  readonly #rows: readonly Float64Array[];
  #waiting = 0;
  #count = 0;

  constructor(columns: number, blockLength: number) {
    this.#columns = columns;
    this.#sums = new Float64Array(columns);
    this.#rows = Array.from({ length: ROWS_AT_ONCE }, () => new Float64Array(columns));
    const blocks: ColumnBlock[] = [];
    for (let begin = 0; begin < columns; begin += blockLength) {
      const length = Math.min(blockLength, columns - begin);
      blocks.push({ begin, length, covariance: new Float64Array(length * length) });
    }
    this.#blocks = blocks;
  }

  /** Where the next row goes; `added` takes it. */
  row(): Float64Array {
    return this.#rows[this.#waiting]!;
  }

  added(): void {
    this.#count++;
    if (++this.#waiting === ROWS_AT_ONCE) this.#flush();
  }

  finish(): GroupStatistics {
    for (const row of this.#rows.slice(this.#waiting)) row.fill(0);
    this.#flush();
    const mean = this.#sums.map((sum) => sum / Math.max(1, this.#count));
    for (const { begin, length, covariance } of this.#blocks) {
      for (let i = 0; i < length; i++) {
        for (let j = i; j < length; j++) {
          const value =
            covariance[i * length + j]! / Math.max(1, this.#count) - mean[begin + i]! * mean[begin + j]!;
          covariance[i * length + j] = value;
          covariance[j * length + i] = value;
        }
      }
    }
    return { mean, blocks: this.#blocks };
  }

  #flush(): void {
    this.#waiting = 0;
    const [a, b, c, d] = this.#rows as [Float64Array, Float64Array, Float64Array, Float64Array];
    const sums = this.#sums;
    for (let at = 0; at < this.#columns; at++) sums[at]! += a[at]! + b[at]! + c[at]! + d[at]!;
    for (const { begin, length, covariance } of this.#blocks) {
      for (let i = 0; i < length; i++) {
        const [ai, bi, ci, di] = [a[begin + i]!, b[begin + i]!, c[begin + i]!, d[begin + i]!];
        if (ai === 0 && bi === 0 && ci === 0 && di === 0) continue;
        const line = i * length;
        for (let j = i; j < length; j++) {
          const at = begin + j;
          covariance[line + j]! += ai * a[at]! + bi * b[at]! + ci * c[at]! + di * d[at]!;
        }
      }
    }
  }
}
