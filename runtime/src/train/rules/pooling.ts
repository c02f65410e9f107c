import type { Value } from "../emitter.js";
import { floatTensor, intAttribute, intsAttribute, sizeOf } from "../graph.js";
import { outputGradient, refuse, type GradientRule, type RuleContext } from "./rule.js";
import { isDisjoint, windowOf, type Window } from "./window.js";

function poolWindow(context: RuleContext): Window {
  const kernel = intsAttribute(context.node, "kernel_shape");
  if (!kernel) throw refuse(context.node, "kernel_shape is missing");
  return windowOf(context.node, context.input(0).dims.slice(2), kernel);
}

/**
 * MaxPool. Windows that tile: compare X with the repeated maximum; equal maxima share the gradient (flat image areas
 * give exact ties). Overlapping windows: scatter-add over the indices output, whose forward is about 20x slower.
 */
export const maxPoolGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const dY = outputGradient(context);
  const x = context.input(0);
  const window = poolWindow(context);
  if (!isDisjoint(window, node)) return [scatterMaxPool(context, dY, x)];
  const y = context.output(0);
  const tiled = tiledPart(y.dims, x.dims, window);
  const cropped = emit.pad(x, zerosFor(x.dims), tiled.crop);
  const winners = emit.mask("Equal", cropped, emit.upsample(y, window.kernel));
  const perWinner = emit.div(dY, emit.blockSum(winners, window.kernel));
  const spread = emit.mul(winners, emit.upsample(perWinner, window.kernel));
  return [emit.pad(spread, zerosFor(x.dims), tiled.extend)];
};

/** How far X reaches beyond the rows that windows cover. */
function tiledPart(yDims: readonly number[], xDims: readonly number[], window: Window) {
  const rest = xDims.map((dim, axis) => (axis < 2 ? 0 : dim - yDims[axis]! * window.kernel[axis - 2]!));
  return { crop: rest.map((size) => -size), extend: rest };
}

function zerosFor(dims: readonly number[]): number[] {
  return dims.map(() => 0);
}

function scatterMaxPool(context: RuleContext, dY: Value, x: Value): Value {
  const { emit, node } = context;
  if (intAttribute(node, "storage_order", 0) !== 0) throw refuse(node, "storage_order 1 has no gradient");
  const indices = emit.extraOutput(node, 1, dY.dims);
  const zeros = emit.op("ConstantOfShape", [emit.ints([sizeOf(x.dims)])], [sizeOf(x.dims)], {
    value: { t: floatTensor([1], [0]) },
  });
  const flatIndices = emit.reshape(indices, [sizeOf(dY.dims)]);
  const flat = emit.op(
    "ScatterElements",
    [zeros, flatIndices, emit.reshape(dY, [sizeOf(dY.dims)])],
    zeros.dims,
    {
      axis: { i: 0 },
      reduction: { s: "add" },
    },
  );
  return emit.reshape(flat, x.dims);
}

/** AveragePool: repeat when windows tile, else a ConvTranspose of ones over dY / (elements in the window). */
export const averagePoolGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const dY = outputGradient(context);
  const x = context.input(0);
  const window = poolWindow(context);
  if (isDisjoint(window, node)) {
    const { extend } = tiledPart(dY.dims, x.dims, window);
    const spread = emit.upsample(emit.scale(dY, 1 / sizeOf(window.kernel)), window.kernel);
    return [emit.pad(spread, zerosFor(x.dims), extend)];
  }
  if (intAttribute(node, "ceil_mode", 0) !== 0)
    throw refuse(node, "overlapping windows with ceil_mode have no gradient");
  const spatial = dY.dims.slice(2);
  const planes = dY.dims[0]! * dY.dims[1]!;
  const weighted = emit.mul(dY, emit.constant(inverseCounts(window, x.dims.slice(2), spatial, node)));
  const ones = emit.constant(
    floatTensor([1, 1, ...window.kernel], new Float32Array(sizeOf(window.kernel)).fill(1)),
  );
  const covered = spatial.map(
    (count, axis) =>
      (count - 1) * window.stride[axis]! +
      window.dilation[axis]! * (window.kernel[axis]! - 1) +
      1 -
      window.padBegin[axis]! -
      window.padEnd[axis]!,
  );
  const spread = emit.op(
    "ConvTranspose",
    [emit.reshape(weighted, [planes, 1, ...spatial]), ones],
    [planes, 1, ...x.dims.slice(2)],
    {
      kernel_shape: { ints: window.kernel },
      strides: { ints: window.stride },
      dilations: { ints: window.dilation },
      pads: { ints: [...window.padBegin, ...window.padEnd] },
      output_padding: { ints: covered.map((size, axis) => x.dims[axis + 2]! - size) },
    },
  );
  return [emit.reshape(spread, x.dims)];
};

/** 1 / (elements that each window averages), [1,1,...output]. */
function inverseCounts(
  window: Window,
  spatial: readonly number[],
  outputSpatial: readonly number[],
  node: RuleContext["node"],
) {
  const includePad = intAttribute(node, "count_include_pad", 0) === 1;
  const perAxis = outputSpatial.map((count, axis) =>
    Array.from({ length: count }, (_, at) => {
      if (includePad) return window.kernel[axis]!;
      let inside = 0;
      for (let k = 0; k < window.kernel[axis]!; k++) {
        const position = at * window.stride[axis]! - window.padBegin[axis]! + k * window.dilation[axis]!;
        if (position >= 0 && position < spatial[axis]!) inside++;
      }
      return inside;
    }),
  );
  let counts = [1];
  for (const axisCounts of perAxis)
    counts = counts.flatMap((head) => axisCounts.map((count) => head * count));
  return floatTensor(
    [1, 1, ...outputSpatial],
    counts.map((count) => 1 / count),
  );
}

export const globalAveragePoolGradient: GradientRule = (context) => {
  const { emit } = context;
  const x = context.input(0);
  const dY = outputGradient(context);
  return [emit.expand(emit.scale(dY, 1 / sizeOf(x.dims.slice(2))), x.dims)];
};
