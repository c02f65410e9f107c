import type { Emitter, Value } from "../emitter.js";
import { intAttribute, intsAttribute, sizeOf, textAttribute, type Attribute } from "../graph.js";
import { outputGradient, refuse, type GradientRule } from "./rule.js";
import { kernelOffsets, windowOf, type Window } from "./window.js";

/** Below so many channels, one batched product over gathered columns beats a Gemm per kernel offset. */
const FEW_CHANNELS = 8;
/** Below so many channels, ConvTranspose beats Conv over flipped weights. */
const NARROW_CHANNELS = 64;

/** Conv: dX as ConvTranspose or Conv over flipped weights, dW as matrix products per kernel offset. */
export const convGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const dY = outputGradient(context);
  const x = context.input(0);
  const weight = context.input(1);
  const window = windowOf(node, x.dims.slice(2), weight.dims.slice(2));
  const groups = intAttribute(node, "group", 1);
  return [
    context.needs(0) ? convInputGradient(emit, dY, weight, x.dims, window, groups) : undefined,
    context.needs(1) ? convWeightGradient(emit, dY, x, weight.dims, window, groups) : undefined,
    node.inputs[2] && context.needs(2) ? sumOverAllButChannels(emit, dY) : undefined,
  ];
};

/** ConvTranspose: the same two gradients with the roles of input and output swapped. */
export const convTransposeGradient: GradientRule = (context) => {
  const { emit, node } = context;
  if (textAttribute(node, "auto_pad", "NOTSET") !== "NOTSET" || intsAttribute(node, "output_shape")) {
    throw refuse(node, "only explicit pads have a gradient, not auto_pad or output_shape");
  }
  const dY = outputGradient(context);
  const x = context.input(0);
  const weight = context.input(1);
  const window = windowOf(node, x.dims.slice(2), weight.dims.slice(2));
  const groups = intAttribute(node, "group", 1);
  const dX = context.needs(0)
    ? emit.op("Conv", [dY, weight], x.dims, windowAttributes(window, groups))
    : undefined;
  return [
    dX,
    context.needs(1) ? convWeightGradient(emit, x, dY, weight.dims, window, groups) : undefined,
    node.inputs[2] && context.needs(2) ? sumOverAllButChannels(emit, dY) : undefined,
  ];
};

function sumOverAllButChannels(emit: Emitter, dY: Value): Value {
  const axes = dY.dims.map((_, axis) => axis).filter((axis) => axis !== 1);
  return emit.reduceSum(dY, axes, false);
}

function windowAttributes(window: Window, groups: number): Record<string, Attribute> {
  return {
    kernel_shape: { ints: window.kernel },
    strides: { ints: window.stride },
    dilations: { ints: window.dilation },
    pads: { ints: [...window.padBegin, ...window.padEnd] },
    group: { i: groups },
  };
}

/** dX [N,C,...] from dY [N,M,...] and W [M,C/g,k...]. */
function convInputGradient(
  emit: Emitter,
  dY: Value,
  weight: Value,
  xDims: readonly number[],
  window: Window,
  groups: number,
): Value {
  const { kernel, stride, dilation, padBegin, padEnd } = window;
  const reach = kernel.map((size, axis) => dilation[axis]! * (size - 1));
  const flippable =
    stride.every((step) => step === 1) &&
    reach.every((span, axis) => padBegin[axis]! <= span && padEnd[axis]! <= span);
  const channels = xDims[1]!;
  const weightsOutweigh = sizeOf(weight.dims) > Math.max(sizeOf(xDims), sizeOf(dY.dims));
  if (flippable && (groups > 1 || (channels >= NARROW_CHANNELS && !weightsOutweigh))) {
    return emit.op("Conv", [dY, flippedWeight(emit, weight, groups)], xDims, {
      ...windowAttributes(window, groups),
      pads: {
        ints: [...reach.map((span, k) => span - padBegin[k]!), ...reach.map((span, k) => span - padEnd[k]!)],
      },
    });
  }
  const covered = kernel.map(
    (_, axis) =>
      (dY.dims[axis + 2]! - 1) * stride[axis]! + reach[axis]! + 1 - padBegin[axis]! - padEnd[axis]!,
  );
  // With a stride, the last rows of X may be read by no window: ConvTranspose must still give them a (zero) gradient.
  const outputPadding = covered.map((size, axis) => xDims[axis + 2]! - size);
  return emit.op("ConvTranspose", [dY, weight], xDims, {
    ...windowAttributes(window, groups),
    output_padding: { ints: outputPadding },
  });
}

/** W [M,C/g,k...] with input and output channels swapped within each group and the kernel reversed: [C,M/g,k...]. */
function flippedWeight(emit: Emitter, weight: Value, groups: number): Value {
  const [outputs = 1, inputs = 1, ...kernel] = weight.dims;
  const spatial = kernel.map((_, axis) => axis);
  const flipped = emit.flip(
    weight,
    spatial.map((axis) => axis + 2),
  );
  if (groups === 1) return emit.transpose(flipped, [1, 0, ...spatial.map((axis) => axis + 2)]);
  const grouped = emit.reshape(flipped, [groups, outputs / groups, inputs, ...kernel]);
  const swapped = emit.transpose(grouped, [0, 2, 1, ...spatial.map((axis) => axis + 3)]);
  return emit.reshape(swapped, [groups * inputs, outputs / groups, ...kernel]);
}

/**
 * dW [M,C/g,k...] of a convolution that reads `x` [N,C,...] and gives `dY` [N,M,...]. Four forms by static choice:
 * pointwise, grouped, few input channels, and the general one.
 */
function convWeightGradient(
  emit: Emitter,
  dY: Value,
  x: Value,
  weightDims: readonly number[],
  window: Window,
  groups: number,
): Value {
  const pointwise =
    groups === 1 &&
    window.kernel.every((size) => size === 1) &&
    window.stride.every((step) => step === 1) &&
    [...window.padBegin, ...window.padEnd].every((pad) => pad === 0);
  if (pointwise) return pointwiseWeightGradient(emit, dY, x, weightDims);
  if (groups > 1) return groupedWeightGradient(emit, dY, x, weightDims, window, groups);
  return x.dims[1]! < FEW_CHANNELS
    ? columnsWeightGradient(emit, dY, x, weightDims, window)
    : offsetsWeightGradient(emit, dY, x, weightDims, window);
}

function pointwiseWeightGradient(emit: Emitter, dY: Value, x: Value, weightDims: readonly number[]): Value {
  const product = emit.matmul(flatSpatial(emit, dY), emit.swap(flatSpatial(emit, x)));
  return emit.reshape(emit.reduceSum(product, [0], false), weightDims);
}

/** All k offsets gathered as columns: one batched MatMul dY[N,M,P] cols[N,P,k*C]. */
function columnsWeightGradient(
  emit: Emitter,
  dY: Value,
  x: Value,
  weightDims: readonly number[],
  window: Window,
): Value {
  const padded = padSpatial(emit, x, window);
  const [batch = 1, outputs = 1, ...spatial] = dY.dims;
  const offsets = kernelOffsets(window.kernel);
  const columns = emit.concat(shiftedViews(emit, padded, offsets, spatial, window), 1);
  const channels = x.dims[1]!;
  const flat = emit.reshape(columns, [batch, offsets.length * channels, sizeOf(spatial)]);
  const product = emit.reduceSum(emit.matmul(flatSpatial(emit, dY), emit.swap(flat)), [0], false);
  const split = emit.reshape(product, [outputs, offsets.length, channels]);
  return emit.reshape(emit.transpose(split, [0, 2, 1]), weightDims);
}

/** Per offset one Gemm over the whole batch: dY^T[M,N*P] X^T[C,N*P]'. */
function offsetsWeightGradient(
  emit: Emitter,
  dY: Value,
  x: Value,
  weightDims: readonly number[],
  window: Window,
): Value {
  const [batch = 1, outputs = 1, ...spatial] = dY.dims;
  const channels = x.dims[1]!;
  const positions = batch * sizeOf(spatial);
  const channelsFirst = [1, 0, ...spatial.map((_, axis) => axis + 2)];
  const dYRows = emit.reshape(emit.transpose(dY, channelsFirst), [outputs, positions]);
  const padded = padSpatial(emit, emit.transpose(x, channelsFirst), window);
  const offsets = kernelOffsets(window.kernel);
  const products = shiftedViews(emit, padded, offsets, spatial, window).map((view) => {
    const rows = emit.reshape(view, [channels, positions]);
    return emit.gemm(dYRows, rows, { transB: true });
  });
  const stacked = emit.reshape(emit.concat(products, 0), [offsets.length, outputs, channels]);
  return emit.reshape(emit.transpose(stacked, [1, 2, 0]), weightDims);
}

/** Per offset one batched MatMul within each group; depthwise is the case of one channel a group. */
function groupedWeightGradient(
  emit: Emitter,
  dY: Value,
  x: Value,
  weightDims: readonly number[],
  window: Window,
  groups: number,
): Value {
  const [batch = 1, outputs = 1, ...spatial] = dY.dims;
  const channels = x.dims[1]!;
  const positions = sizeOf(spatial);
  const dYGroups = emit.reshape(dY, [batch, groups, outputs / groups, positions]);
  const padded = padSpatial(emit, x, window);
  const offsets = kernelOffsets(window.kernel);
  const products = shiftedViews(emit, padded, offsets, spatial, window).map((view) => {
    const rows = emit.reshape(view, [batch, groups, channels / groups, positions]);
    const product = emit.reduceSum(emit.matmul(dYGroups, emit.swap(rows)), [0], false);
    return emit.reshape(product, [1, outputs, channels / groups]);
  });
  const stacked = emit.concat(products, 0);
  return emit.reshape(emit.transpose(stacked, [1, 2, 0]), weightDims);
}

function flatSpatial(emit: Emitter, x: Value): Value {
  return emit.reshape(x, [x.dims[0]!, x.dims[1]!, sizeOf(x.dims.slice(2))]);
}

function padSpatial(emit: Emitter, x: Value, window: Window): Value {
  return emit.pad(x, [0, 0, ...window.padBegin], [0, 0, ...window.padEnd]);
}

/**
 * What each kernel offset sees at every output position. Slices with a step copy element by element: a strided window
 * is first split into its phases (offset modulo stride), of which the offsets then are plain slices.
 */
function shiftedViews(
  emit: Emitter,
  padded: Value,
  offsets: readonly (readonly number[])[],
  outputSpatial: readonly number[],
  window: Window,
): Value[] {
  const { stride, dilation } = window;
  const axes = stride.map((_, axis) => axis + 2);
  const ones = stride.map(() => 1);
  const phases = new Map<string, Value>();
  return offsets.map((offset) => {
    const starts = offset.map((k, axis) => k * dilation[axis]!);
    if (offsets.length <= sizeOf(stride)) return emit.slice(padded, axes, starts, outputSpatial, stride);
    const phase = starts.map((start, axis) => start % stride[axis]!);
    let image = phases.get(phase.join());
    if (!image) {
      const lengths = phase.map((start, axis) => Math.ceil((padded.dims[axis + 2]! - start) / stride[axis]!));
      image = emit.slice(padded, axes, phase, lengths, stride);
      phases.set(phase.join(), image);
    }
    const within = starts.map((start, axis) => Math.floor(start / stride[axis]!));
    return emit.slice(image, axes, within, outputSpatial, ones);
  });
}
