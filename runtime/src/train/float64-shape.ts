import { broadcastIndices, stridesOf, walk, type Operator } from "./float64-tensor.js";
import { intAttribute, intsAttribute, sizeOf } from "./graph.js";
import { positiveAxis } from "./rules/rule.js";

export const transpose: Operator = ({ node, inputs, outputDims }) => {
  const x = inputs[0]!;
  const strides = stridesOf(x.dims);
  const permutation = intsAttribute(node, "perm") ?? x.dims.map((_, axis) => x.dims.length - 1 - axis);
  const steps = permutation.map((from) => strides[from]!);
  return [Float64Array.from(walk(outputDims[0]!, steps, 0), (at) => x.data[at]!)];
};

/** Concat is the reverse of Split: both move blocks of `length * inner` numbers. */
export const concat: Operator = ({ node, inputs, outputDims }) => {
  const dims = outputDims[0]!;
  const axis = positiveAxis(intAttribute(node, "axis", 0), dims.length);
  const outer = sizeOf(dims.slice(0, axis));
  const y: number[] = [];
  for (let n = 0; n < outer; n++) {
    for (const input of inputs) {
      const block = input!.data.length / outer;
      y.push(...input!.data.subarray(n * block, (n + 1) * block));
    }
  }
  return [Float64Array.from(y)];
};

export const split: Operator = ({ node, inputs, outputDims }) => {
  const x = inputs[0]!;
  const axis = positiveAxis(intAttribute(node, "axis", 0), x.dims.length);
  const outer = sizeOf(x.dims.slice(0, axis));
  const row = x.data.length / outer;
  let start = 0;
  return outputDims.map((dims) => {
    const block = sizeOf(dims) / outer;
    const part = new Float64Array(sizeOf(dims));
    for (let n = 0; n < outer; n++)
      part.set(x.data.subarray(n * row + start, n * row + start + block), n * block);
    start += block;
    return part;
  });
};

export const slice: Operator = ({ inputs, outputDims }) => {
  const x = inputs[0]!;
  const starts = inputs[1]!.data;
  const axes = inputs[3]?.data ?? starts.map((_, axis) => axis);
  const strides = stridesOf(x.dims);
  let base = 0;
  axes.forEach((given, k) => {
    const axis = positiveAxis(given, x.dims.length);
    const size = x.dims[axis]!;
    base += Math.max(0, Math.min(size, starts[k]! < 0 ? starts[k]! + size : starts[k]!)) * strides[axis]!;
  });
  return [Float64Array.from(walk(outputDims[0]!, strides, base), (at) => x.data[at]!)];
};

export const pad: Operator = ({ inputs, outputDims }) => {
  const x = inputs[0]!;
  const pads = inputs[1]!.data;
  const dims = outputDims[0]!;
  const y = new Float64Array(sizeOf(dims)).fill(inputs[2]?.data[0] ?? 0);
  const strides = stridesOf(dims);
  const positions = x.dims.map((dim, axis) => Array.from({ length: dim }, (_, k) => k + pads[axis]!));
  let targets: (number | undefined)[] = [0];
  positions.forEach((list, axis) => {
    targets = targets.flatMap((base) =>
      list.map((at) =>
        base === undefined || at < 0 || at >= dims[axis]! ? undefined : base + at * strides[axis]!,
      ),
    );
  });
  targets.forEach((to, from) => {
    if (to !== undefined) y[to] = x.data[from]!;
  });
  return [y];
};

export const resize: Operator = ({ inputs, outputDims }) => {
  const x = inputs[0]!;
  const dims = outputDims[0]!;
  const strides = stridesOf(x.dims);
  let offsets = [0];
  dims.forEach((dim, axis) => {
    const factor = dim / x.dims[axis]!;
    offsets = offsets.flatMap((base) =>
      Array.from({ length: dim }, (_, k) => base + Math.floor(k / factor) * strides[axis]!),
    );
  });
  return [Float64Array.from(offsets, (at) => x.data[at]!)];
};

export const expand: Operator = ({ inputs, outputDims }) => {
  const x = inputs[0]!;
  return [Float64Array.from(broadcastIndices(x.dims, outputDims[0]!), (at) => x.data[at]!)];
};

export function reduce(mean: boolean): Operator {
  return ({ node, inputs, outputDims }) => {
    const x = inputs[0]!;
    const given = inputs[1]?.data ?? intsAttribute(node, "axes") ?? [];
    const listed = Array.from(given, (axis) => positiveAxis(axis, x.dims.length));
    const axes = listed.length > 0 ? listed : x.dims.map((_, axis) => axis);
    const kept = x.dims.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
    const y = new Float64Array(sizeOf(outputDims[0]!));
    broadcastIndices(kept, x.dims).forEach((to, from) => (y[to]! += x.data[from]!));
    const count = mean ? x.data.length / y.length : 1;
    return [y.map((sum) => sum / count)];
  };
}

export const gather: Operator = ({ inputs }) => {
  const [table, indices] = [inputs[0]!, inputs[1]!];
  const row = table.data.length / table.dims[0]!;
  const y = new Float64Array(indices.data.length * row);
  indices.data.forEach((index, k) => {
    const from = index < 0 ? index + table.dims[0]! : index;
    y.set(table.data.subarray(from * row, (from + 1) * row), k * row);
  });
  return [y];
};
