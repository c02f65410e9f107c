import type { Evaluation } from "./float64-tensor.js";
import { intAttribute, intsAttribute, sizeOf } from "./graph.js";
import { kernelOffsets, windowOf, type Window } from "./rules/window.js";

/** All multi-indices of a shape in row-major order. */
function positionsOf(dims: readonly number[]): number[][] {
  return kernelOffsets(dims);
}

/** Index of input element that `offset` of the window at `position` reads, or -1 in the padding. */
function reads(
  window: Window,
  spatial: readonly number[],
  position: readonly number[],
  offset: readonly number[],
): number {
  let index = 0;
  for (let axis = 0; axis < spatial.length; axis++) {
    const at =
      position[axis]! * window.stride[axis]! -
      window.padBegin[axis]! +
      offset[axis]! * window.dilation[axis]!;
    if (at < 0 || at >= spatial[axis]!) return -1;
    index = index * spatial[axis]! + at;
  }
  return index;
}

/** Conv in double precision (ONNX Conv). */
export function evaluateConv({ node, inputs, outputDims }: Evaluation): Float64Array[] {
  const [x, weight, bias] = [inputs[0]!, inputs[1]!, inputs[2]];
  const [batch = 1, channels = 1, ...spatial] = x.dims;
  const [, outputs = 1, ...outputSpatial] = outputDims[0]!;
  const window = windowOf(node, spatial, weight.dims.slice(2));
  const groups = intAttribute(node, "group", 1);
  const plane = sizeOf(spatial);
  const outputPlane = sizeOf(outputSpatial);
  const kernelSize = sizeOf(window.kernel);
  const perGroup = channels / groups;
  const y = new Float64Array(batch * outputs * outputPlane);
  positionsOf(outputSpatial).forEach((position, p) => {
    kernelOffsets(window.kernel).forEach((offset, k) => {
      const at = reads(window, spatial, position, offset);
      if (at < 0) return;
      for (let n = 0; n < batch; n++) {
        for (let m = 0; m < outputs; m++) {
          const first = Math.floor(m / (outputs / groups)) * perGroup;
          let sum = 0;
          for (let c = 0; c < perGroup; c++) {
            sum +=
              weight.data[(m * perGroup + c) * kernelSize + k]! *
              x.data[(n * channels + first + c) * plane + at]!;
          }
          y[(n * outputs + m) * outputPlane + p]! += sum;
        }
      }
    });
  });
  if (bias) y.forEach((_, at) => (y[at]! += bias.data[Math.floor(at / outputPlane) % outputs]!));
  return [y];
}

/** ConvTranspose in double precision: every input element adds its kernel to the output. */
export function evaluateConvTranspose({ node, inputs, outputDims }: Evaluation): Float64Array[] {
  const [x, weight, bias] = [inputs[0]!, inputs[1]!, inputs[2]];
  const [batch = 1, channels = 1, ...spatial] = x.dims;
  const [, outputs = 1, ...outputSpatial] = outputDims[0]!;
  const window = windowOf(node, spatial, weight.dims.slice(2));
  const groups = intAttribute(node, "group", 1);
  const plane = sizeOf(spatial);
  const outputPlane = sizeOf(outputSpatial);
  const kernelSize = sizeOf(window.kernel);
  const perGroup = outputs / groups;
  const y = new Float64Array(batch * outputs * outputPlane);
  positionsOf(spatial).forEach((position, p) => {
    kernelOffsets(window.kernel).forEach((offset, k) => {
      const at = reads(window, outputSpatial, position, offset);
      if (at < 0) return;
      for (let n = 0; n < batch; n++) {
        for (let c = 0; c < channels; c++) {
          const first = Math.floor(c / (channels / groups)) * perGroup;
          const value = x.data[(n * channels + c) * plane + p]!;
          for (let m = 0; m < perGroup; m++) {
            y[(n * outputs + first + m) * outputPlane + at]! +=
              value * weight.data[(c * perGroup + m) * kernelSize + k]!;
          }
        }
      }
    });
  });
  if (bias) y.forEach((_, at) => (y[at]! += bias.data[Math.floor(at / outputPlane) % outputs]!));
  return [y];
}

/** MaxPool and AveragePool in double precision. */
export function evaluatePool({ node, inputs, outputDims }: Evaluation): Float64Array[] {
  const x = inputs[0]!;
  const [batch = 1, channels = 1, ...spatial] = x.dims;
  const outputSpatial = outputDims[0]!.slice(2);
  const window = windowOf(node, spatial, intsAttribute(node, "kernel_shape")!);
  const offsets = kernelOffsets(window.kernel);
  const includePad = intAttribute(node, "count_include_pad", 0) === 1;
  const plane = sizeOf(spatial);
  const positions = positionsOf(outputSpatial);
  const y = new Float64Array(batch * channels * positions.length);
  positions.forEach((position, p) => {
    const cells = offsets.map((offset) => reads(window, spatial, position, offset)).filter((at) => at >= 0);
    for (let nc = 0; nc < batch * channels; nc++) {
      const values = cells.map((at) => x.data[nc * plane + at]!);
      y[nc * positions.length + p] =
        node.op === "MaxPool"
          ? Math.max(...values)
          : values.reduce((sum, value) => sum + value, 0) / (includePad ? offsets.length : values.length);
    }
  });
  return [y];
}
