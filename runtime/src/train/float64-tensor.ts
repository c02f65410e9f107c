import type { TrainNode } from "./graph.js";

/** A dense tensor in double precision. */
export interface Tensor64 {
  readonly dims: readonly number[];
  readonly data: Float64Array;
}

/** What an operator of the reference interpreter sees. */
export interface Evaluation {
  readonly node: TrainNode;
  readonly inputs: readonly (Tensor64 | undefined)[];
  /** Shape of each output. */
  readonly outputDims: readonly (readonly number[])[];
}

/** One operator of the reference interpreter: its outputs, in order. */
export type Operator = (evaluation: Evaluation) => readonly (Float64Array | undefined)[];

/** Index into a tensor of shape `dims` (broadcast, right-aligned) for each element of `over`, in order. */
export function broadcastIndices(dims: readonly number[], over: readonly number[]): Int32Array {
  const lead = over.length - dims.length;
  let step = 1;
  const steps = over.map(() => 0);
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    steps[axis + lead] = dims[axis] === 1 ? 0 : step;
    step *= dims[axis]!;
  }
  return walk(over, steps, 0);
}

/** Offsets `start + sum(index * step)` for all multi-indices of `dims` in row-major order. */
export function walk(dims: readonly number[], steps: readonly number[], start: number): Int32Array {
  let offsets = [start];
  dims.forEach((dim, axis) => {
    offsets = offsets.flatMap((base) => Array.from({ length: dim }, (_, k) => base + k * steps[axis]!));
  });
  return Int32Array.from(offsets);
}

/** Row-major strides of a shape. */
export function stridesOf(dims: readonly number[]): number[] {
  const strides = dims.map(() => 1);
  for (let axis = dims.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * dims[axis + 1]!;
  return strides;
}
