import { intAttribute, intsAttribute, textAttribute, type TrainNode } from "../graph.js";

/** The sliding window of Conv, ConvTranspose and the pools, per spatial axis, with `auto_pad` resolved. */
export interface Window {
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly padBegin: readonly number[];
  readonly padEnd: readonly number[];
}

/** Reads the window of a node; `spatial` is the shape of its input without batch and channels. */
export function windowOf(node: TrainNode, spatial: readonly number[], kernel: readonly number[]): Window {
  const ones = spatial.map(() => 1);
  const stride = intsAttribute(node, "strides") ?? ones;
  const dilation = intsAttribute(node, "dilations") ?? ones;
  const rank = spatial.length;
  const autoPad = textAttribute(node, "auto_pad", "NOTSET");
  if (autoPad === "SAME_UPPER" || autoPad === "SAME_LOWER") {
    const total = spatial.map((size, axis) => {
      const count = Math.ceil(size / stride[axis]!);
      return Math.max(0, (count - 1) * stride[axis]! + dilation[axis]! * (kernel[axis]! - 1) + 1 - size);
    });
    const small = total.map((pad) => Math.floor(pad / 2));
    const large = total.map((pad, axis) => pad - small[axis]!);
    const upper = autoPad === "SAME_UPPER";
    return { kernel, stride, dilation, padBegin: upper ? small : large, padEnd: upper ? large : small };
  }
  const pads = autoPad === "VALID" ? undefined : intsAttribute(node, "pads");
  const zeros = spatial.map(() => 0);
  return {
    kernel,
    stride,
    dilation,
    padBegin: pads?.slice(0, rank) ?? zeros,
    padEnd: pads?.slice(rank) ?? zeros,
  };
}

/** Windows that tile the input without overlap, gap or padding; leftover rows at the end belong to none. */
export function isDisjoint(window: Window, node: TrainNode): boolean {
  return (
    intAttribute(node, "ceil_mode", 0) === 0 &&
    window.kernel.every((size, axis) => size === window.stride[axis] && window.dilation[axis] === 1) &&
    [...window.padBegin, ...window.padEnd].every((pad) => pad === 0)
  );
}

/** All kernel offsets in row-major order, as multi-indices. */
export function kernelOffsets(kernel: readonly number[]): number[][] {
  let offsets: number[][] = [[]];
  for (const size of kernel) {
    offsets = offsets.flatMap((head) => Array.from({ length: size }, (_, k) => [...head, k]));
  }
  return offsets;
}
