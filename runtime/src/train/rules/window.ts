import { resolveWindow, type Window } from "../../onnx/window.js";
import { intAttribute, intsAttribute, textAttribute, type TrainNode } from "../graph.js";

export type { Window } from "../../onnx/window.js";

/** Reads the window of a node; `spatial` is the shape of its input without batch and channels. */
export function windowOf(node: TrainNode, spatial: readonly number[], kernel: readonly number[]): Window {
  return resolveWindow(
    {
      strides: intsAttribute(node, "strides"),
      dilations: intsAttribute(node, "dilations"),
      pads: intsAttribute(node, "pads"),
      autoPad: textAttribute(node, "auto_pad", "NOTSET"),
    },
    spatial,
    kernel,
  );
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
