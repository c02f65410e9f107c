import { FieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import {
  floatTensor,
  intTensor,
  sameDims,
  sizeOf,
  type Attribute,
  type TrainGraph,
  type TrainNode,
} from "./graph.js";

/** A value of the graph under construction, with its static shape. */
export interface Value {
  readonly name: string;
  readonly dims: readonly number[];
}

/** Right-aligned broadcasting of two shapes (ONNX Broadcasting, as NumPy). */
export function broadcastDims(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const left = a[axis - rank + a.length] ?? 1;
    const right = b[axis - rank + b.length] ?? 1;
    if (left !== right && left !== 1 && right !== 1) {
      throw new FieldloopError(
        "internal",
        `Build gradients: shapes [${a.join()}] and [${b.join()}] do not broadcast`,
      );
    }
    return left === 1 ? right : left;
  });
}

/** Width of the matrix of ones in {@link Emitter.blockSum}: one vector register of the CPU's matrix kernels. */
const BLOCK_COLUMNS_MAX = 16;

function largestDivisor(count: number, max: number): number {
  let divisor = Math.min(count, max);
  while (count % divisor !== 0) divisor--;
  return divisor;
}

/**
 * Appends standard operators to a graph and keeps the shape of everything it appends, so that a gradient rule reads
 * like the formula that it implements. All dimensions are static: one training graph serves one batch size.
 */
export class Emitter {
  readonly #graph: TrainGraph;
  readonly #shapes: Map<string, readonly number[]>;
  readonly #constantNames = new Map<string, string>();
  #counter = 0;

  constructor(graph: TrainGraph, shapes: Map<string, readonly number[]>) {
    this.#graph = graph;
    this.#shapes = shapes;
  }

  /** A value of the forward graph by name. */
  value(name: string): Value {
    const dims = this.#shapes.get(name);
    if (!dims) throw new FieldloopError("internal", `Build gradients: value "${name}" has no known shape`);
    return { name, dims };
  }

  /** The tensor behind a name, when it is constant. */
  constantOf(name: string): Tensor | undefined {
    return this.#graph.constants.get(name);
  }

  /** Appends one operator with one output of the given shape. */
  op(
    op: string,
    inputs: readonly (Value | undefined)[],
    dims: readonly number[],
    attributes: Record<string, Attribute> = {},
  ): Value {
    const name = this.freshName(op);
    const node: TrainNode = {
      op,
      name,
      inputs: inputs.map((input) => input?.name ?? ""),
      outputs: [name],
      attributes,
    };
    this.#graph.nodes.push(node);
    this.#shapes.set(name, dims);
    return { name, dims };
  }

  /** Declares a further output of a node that is already in the graph, e.g. the indices of MaxPool. */
  extraOutput(node: TrainNode, index: number, dims: readonly number[]): Value {
    while (node.outputs.length <= index) node.outputs.push("");
    if (!node.outputs[index]) {
      node.outputs[index] = this.freshName(`${node.op}_output`);
      this.#shapes.set(node.outputs[index]!, dims);
    }
    return { name: node.outputs[index]!, dims };
  }

  freshName(stem: string): string {
    return `training/${stem}_${this.#counter++}`;
  }

  constant(tensor: Tensor): Value {
    const data = tensor.data as Float32Array;
    const short =
      data.length <= 64 ? `${tensor.type}[${tensor.dims.join()}]${Array.from(data).join(",")}` : undefined;
    let name = short === undefined ? undefined : this.#constantNames.get(short);
    if (name === undefined) {
      name = this.freshName("constant");
      this.#graph.constants.set(name, tensor);
      this.#shapes.set(name, tensor.dims);
      if (short !== undefined) this.#constantNames.set(short, name);
    }
    return { name, dims: tensor.dims };
  }

  float(value: number): Value {
    return this.constant(floatTensor([], [value]));
  }

  ints(values: readonly number[]): Value {
    return this.constant(intTensor(values));
  }

  unary(op: string, x: Value, attributes: Record<string, Attribute> = {}): Value {
    return this.op(op, [x], x.dims, attributes);
  }

  binary(op: string, a: Value, b: Value): Value {
    return this.op(op, [a, b], broadcastDims(a.dims, b.dims));
  }

  add(a: Value, b: Value): Value {
    return this.binary("Add", a, b);
  }

  sub(a: Value, b: Value): Value {
    return this.binary("Sub", a, b);
  }

  mul(a: Value, b: Value): Value {
    return this.binary("Mul", a, b);
  }

  div(a: Value, b: Value): Value {
    return this.binary("Div", a, b);
  }

  scale(x: Value, factor: number): Value {
    return factor === 1 ? x : this.mul(x, this.float(factor));
  }

  /** 1 where the comparison holds, else 0, as float: cheaper than `Where` and than `Sign` on CPU. */
  mask(
    comparison: "Greater" | "Less" | "Equal" | "GreaterOrEqual" | "LessOrEqual",
    a: Value,
    b: Value,
  ): Value {
    return this.unary("Cast", this.binary(comparison, a, b), { to: { i: 1 } });
  }

  reduceSum(x: Value, axes: readonly number[], keepDims: boolean): Value {
    if (axes.length === 0) return x;
    const dims = keepDims
      ? x.dims.map((dim, axis) => (axes.includes(axis) ? 1 : dim))
      : x.dims.filter((_, axis) => !axes.includes(axis));
    return this.op("ReduceSum", [x, this.ints(axes)], dims, { keepdims: { i: keepDims ? 1 : 0 } });
  }

  reshape(x: Value, dims: readonly number[]): Value {
    if (sameDims(x.dims, dims)) return x;
    if (sizeOf(x.dims) !== sizeOf(dims)) {
      throw new FieldloopError(
        "internal",
        `Build gradients: reshape of [${x.dims.join()}] to [${dims.join()}]`,
      );
    }
    return this.op("Reshape", [x, this.ints(dims)], dims);
  }

  transpose(x: Value, permutation: readonly number[]): Value {
    if (permutation.every((from, to) => from === to)) return x;
    return this.op(
      "Transpose",
      [x],
      permutation.map((from) => x.dims[from]!),
      { perm: { ints: permutation } },
    );
  }

  expand(x: Value, dims: readonly number[]): Value {
    return sameDims(x.dims, dims) ? x : this.op("Expand", [x, this.ints(dims)], dims);
  }

  concat(parts: readonly Value[], axis: number): Value {
    if (parts.length === 1) return parts[0]!;
    const dims = [...parts[0]!.dims];
    dims[axis] = parts.reduce((sum, part) => sum + part.dims[axis]!, 0);
    return this.op("Concat", parts, dims, { axis: { i: axis } });
  }

  /** `start`, `length` and `step` per axis listed in `axes`; steps are positive here, see {@link flip}. */
  slice(
    x: Value,
    axes: readonly number[],
    starts: readonly number[],
    lengths: readonly number[],
    steps: readonly number[],
  ): Value {
    const whole = axes.every((axis, k) => starts[k] === 0 && lengths[k] === x.dims[axis] && steps[k] === 1);
    if (whole) return x;
    const ends = starts.map((start, k) => start + (lengths[k]! - 1) * steps[k]! + 1);
    const dims = [...x.dims];
    axes.forEach((axis, k) => (dims[axis] = lengths[k]!));
    return this.op("Slice", [x, this.ints(starts), this.ints(ends), this.ints(axes), this.ints(steps)], dims);
  }

  /** Reverses the listed axes. */
  flip(x: Value, axes: readonly number[]): Value {
    if (axes.every((axis) => x.dims[axis] === 1)) return x;
    const backwards = axes.map(() => -1);
    const ends = axes.map((axis) => -x.dims[axis]! - 1);
    return this.op(
      "Slice",
      [x, this.ints(backwards), this.ints(ends), this.ints(axes), this.ints(backwards)],
      x.dims,
    );
  }

  /** Zero padding, ONNX order: all begins, then all ends; negative pads crop. */
  pad(x: Value, begins: readonly number[], ends: readonly number[]): Value {
    if (begins.every((pad) => pad === 0) && ends.every((pad) => pad === 0)) return x;
    const dims = x.dims.map((dim, axis) => dim + begins[axis]! + ends[axis]!);
    return this.op("Pad", [x, this.ints([...begins, ...ends])], dims);
  }

  /** Repeats every element of the trailing axes by whole factors. */
  upsample(x: Value, factors: readonly number[]): Value {
    if (factors.every((factor) => factor === 1)) return x;
    const leading = x.dims.length - factors.length;
    const scales = [...Array.from({ length: leading }, () => 1), ...factors];
    return this.op(
      "Resize",
      [x, undefined, this.constant(floatTensor([scales.length], scales))],
      x.dims.map((dim, axis) => dim * scales[axis]!),
      {
        mode: { s: "nearest" },
        coordinate_transformation_mode: { s: "asymmetric" },
        nearest_mode: { s: "floor" },
      },
    );
  }

  /**
   * Sums blocks of whole factors over the trailing axes: the reverse of {@link upsample}. The last axis by a product
   * with a matrix of ones, the others by adding slices: on CPU quicker than AveragePool, far quicker than ReduceSum.
   */
  blockSum(x: Value, factors: readonly number[]): Value {
    const lead = x.dims.length - factors.length;
    let at = this.#sumLastAxis(x, factors.at(-1)!);
    factors.slice(0, -1).forEach((factor, k) => {
      const before = at.dims.slice(0, lead + k);
      const after = at.dims.slice(lead + k + 1);
      const count = at.dims[lead + k]! / factor;
      const split = this.reshape(at, [sizeOf(before) * count, factor, sizeOf(after)]);
      let sum = this.slice(split, [1], [0], [1], [1]);
      for (let row = 1; row < factor; row++) sum = this.add(sum, this.slice(split, [1], [row], [1], [1]));
      at = this.reshape(sum, [...before, count, ...after]);
    });
    return at;
  }

  #sumLastAxis(x: Value, factor: number): Value {
    if (factor === 1) return x;
    const before = x.dims.slice(0, -1);
    const count = x.dims.at(-1)! / factor;
    const group = largestDivisor(count, BLOCK_COLUMNS_MAX);
    const ones = new Float32Array(group * factor * group);
    for (let row = 0; row < group * factor; row++) ones[row * group + Math.floor(row / factor)] = 1;
    const rows = this.reshape(x, [(sizeOf(before) * count) / group, group * factor]);
    return this.reshape(this.gemm(rows, this.constant(floatTensor([group * factor, group], ones))), [
      ...before,
      count,
    ]);
  }

  /** Batched matrix product; ONNX Runtime fuses the transposes that precede it. */
  matmul(a: Value, b: Value): Value {
    const rows = a.dims[a.dims.length - 2]!;
    const columns = b.dims[b.dims.length - 1]!;
    return this.op(
      "MatMul",
      [a, b],
      [...broadcastDims(a.dims.slice(0, -2), b.dims.slice(0, -2)), rows, columns],
    );
  }

  /** Swaps the last two axes. */
  swap(x: Value): Value {
    const rank = x.dims.length;
    const axes = Array.from({ length: rank }, (_, axis) => axis);
    return this.transpose(x, [...axes.slice(0, -2), rank - 1, rank - 2]);
  }

  /** `alpha * a' b'` on matrices. */
  gemm(a: Value, b: Value, options: { transA?: boolean; transB?: boolean; alpha?: number } = {}): Value {
    const rows = a.dims[options.transA ? 1 : 0]!;
    const columns = b.dims[options.transB ? 0 : 1]!;
    return this.op("Gemm", [a, b], [rows, columns], {
      transA: { i: options.transA ? 1 : 0 },
      transB: { i: options.transB ? 1 : 0 },
      alpha: { f: options.alpha ?? 1 },
    });
  }

  /** Sums a gradient over the axes along which `dims` was broadcast. */
  unbroadcast(gradient: Value, dims: readonly number[]): Value {
    if (sameDims(gradient.dims, dims)) return gradient;
    const lead = gradient.dims.length - dims.length;
    const axes: number[] = [];
    gradient.dims.forEach((dim, axis) => {
      if (axis < lead || (dims[axis - lead] === 1 && dim !== 1)) axes.push(axis);
    });
    return this.reshape(this.reduceSum(gradient, axes, true), dims);
  }
}
