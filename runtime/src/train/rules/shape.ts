import type { Value } from "../emitter.js";
import { floatTensor, intAttribute, intsAttribute, numbersOf, sizeOf, textAttribute } from "../graph.js";
import { outputGradient, positiveAxis, refuse, type GradientRule, type RuleContext } from "./rule.js";

/** Reshape, Flatten, Squeeze, Unsqueeze: the same elements in the old shape. Shape inputs get no gradient. */
export const reshapeGradient: GradientRule = (context) => [
  context.emit.reshape(outputGradient(context), context.input(0).dims),
];

/** Identity, and Dropout as inference runs it. */
export const identityGradient: GradientRule = (context) => [outputGradient(context)];

export const transposeGradient: GradientRule = (context) => {
  const rank = context.input(0).dims.length;
  const permutation =
    intsAttribute(context.node, "perm") ?? Array.from({ length: rank }, (_, axis) => rank - 1 - axis);
  const inverse = Array.from({ length: rank }, () => 0);
  permutation.forEach((from, to) => (inverse[from] = to));
  return [context.emit.transpose(outputGradient(context), inverse)];
};

export const concatGradient: GradientRule = (context) => {
  const dY = outputGradient(context);
  const axis = positiveAxis(intAttribute(context.node, "axis", 0), dY.dims.length);
  let start = 0;
  return context.node.inputs.map((_, index) => {
    const length = context.input(index).dims[axis]!;
    const from = start;
    start += length;
    return context.needs(index) ? context.emit.slice(dY, [axis], [from], [length], [1]) : undefined;
  });
};

/** Parts that the loss does not use contribute zeros. */
export const splitGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const x = context.input(0);
  const axis = positiveAxis(intAttribute(node, "axis", 0), x.dims.length);
  const parts = node.outputs.map((_, index): Value => {
    const found = context.gradient(index);
    if (found) return found;
    const dims = context.output(index).dims;
    return emit.constant(floatTensor(dims, new Float32Array(sizeOf(dims))));
  });
  return [emit.concat(parts, axis)];
};

/** Slice with step 1: pad the gradient back to the old shape. */
export const sliceGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const x = context.input(0);
  const starts = constantNumbers(context, 1);
  const axes = node.inputs[3] ? constantNumbers(context, 3) : starts.map((_, axis) => axis);
  const steps = node.inputs[4] ? constantNumbers(context, 4) : starts.map(() => 1);
  if (steps.some((step) => step !== 1))
    throw refuse(node, `steps [${steps.join()}] have no gradient, only 1`);
  const dY = outputGradient(context);
  const begins = x.dims.map(() => 0);
  axes.forEach((given, k) => {
    const axis = positiveAxis(given, x.dims.length);
    const size = x.dims[axis]!;
    begins[axis] = Math.max(0, Math.min(size, starts[k]! < 0 ? starts[k]! + size : starts[k]!));
  });
  const ends = x.dims.map((dim, axis) => dim - begins[axis]! - dY.dims[axis]!);
  return [emit.pad(dY, begins, ends)];
};

/** Pad with constant mode: crop. */
export const padGradient: GradientRule = (context) => {
  const { emit, node } = context;
  if (textAttribute(node, "mode", "constant") !== "constant")
    throw refuse(node, "only constant padding has a gradient");
  if (node.inputs[3]) throw refuse(node, "padding of listed axes has no gradient");
  const pads = constantNumbers(context, 1);
  const rank = pads.length / 2;
  const negative = pads.map((pad) => -pad);
  return [emit.pad(outputGradient(context), negative.slice(0, rank), negative.slice(rank))];
};

/** Resize by whole factors with mode nearest: sum over each block. */
export const resizeGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const x = context.input(0);
  const dY = outputGradient(context);
  const factors = dY.dims.map((dim, axis) => dim / x.dims[axis]!);
  const spatial = factors.slice(2);
  const whole = spatial.every((factor) => Number.isInteger(factor)) && factors[0] === 1 && factors[1] === 1;
  if (!whole || textAttribute(node, "mode", "nearest") !== "nearest" || !repeatsBlocks(node, spatial)) {
    throw refuse(node, `only nearest with whole factors has a gradient, here [${factors.join()}]`);
  }
  return [emit.blockSum(dY, spatial)];
};

/** Whether nearest with these coordinates copies each element to a block (ONNX Resize, nearest_mode). */
function repeatsBlocks(node: RuleContext["node"], factors: readonly number[]): boolean {
  const coordinates = textAttribute(node, "coordinate_transformation_mode", "half_pixel");
  const nearest = textAttribute(node, "nearest_mode", "round_prefer_floor");
  if (coordinates === "half_pixel" || coordinates === "pytorch_half_pixel")
    return nearest.startsWith("round");
  if (coordinates !== "asymmetric") return false;
  return nearest === "floor" || (nearest === "round_prefer_floor" && factors.every((factor) => factor <= 2));
}

export const expandGradient: GradientRule = (context) => [
  context.emit.unbroadcast(outputGradient(context), context.input(0).dims),
];

export const reduceMeanGradient: GradientRule = (context) => reduceGradient(context, true);
export const reduceSumGradient: GradientRule = (context) => reduceGradient(context, false);

function reduceGradient(context: RuleContext, mean: boolean): readonly Value[] {
  const { emit, node } = context;
  const x = context.input(0);
  const given = node.inputs[1] ? constantNumbers(context, 1) : intsAttribute(node, "axes");
  let axes = (given ?? []).map((axis) => positiveAxis(axis, x.dims.length));
  if (axes.length === 0) {
    if (intAttribute(node, "noop_with_empty_axes", 0) === 1) return [outputGradient(context)];
    axes = x.dims.map((_, axis) => axis);
  }
  const kept = x.dims.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
  const count = axes.reduce((product, axis) => product * x.dims[axis]!, 1);
  const dY = emit.reshape(outputGradient(context), kept);
  return [emit.expand(emit.scale(dY, mean ? 1 / count : 1), x.dims)];
}

/** Gather along an axis 0 of a table (embedding): add the rows back with ScatterND. */
export const gatherGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const table = context.input(0);
  const indices = context.input(1);
  if (positiveAxis(intAttribute(node, "axis", 0), table.dims.length) !== 0) {
    throw refuse(node, "only axis 0 has a gradient");
  }
  const zeros = emit.op("ConstantOfShape", [emit.ints(table.dims)], table.dims, {
    value: { t: floatTensor([1], [0]) },
  });
  const positions = emit.reshape(indices, [...indices.dims, 1]);
  return [
    emit.op("ScatterND", [zeros, positions, outputGradient(context)], table.dims, {
      reduction: { s: "add" },
    }),
  ];
};

function constantNumbers(context: RuleContext, index: number): number[] {
  const tensor = context.emit.constantOf(context.node.inputs[index]!);
  if (!tensor) throw refuse(context.node, `input ${index} must be constant`);
  return numbersOf(tensor);
}
