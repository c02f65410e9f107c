import type { Emitter, Value } from "../emitter.js";
import { floatAttribute, intAttribute } from "../graph.js";
import { outputGradient, positiveAxis, refuse, type GradientRule } from "./rule.js";

/**
 * BatchNormalization with frozen statistics: y = gamma (x - mu) / sqrt(var + eps) + beta. Batch statistics are not
 * re-estimated; on the measured nets frozen, trainable and folded end at the same accuracy.
 */
export const batchNormalizationGradient: GradientRule = (context) => {
  const { emit, node } = context;
  if (intAttribute(node, "training_mode", 0) !== 0) throw refuse(node, "training_mode 1 has no gradient");
  const dY = outputGradient(context);
  const x = context.input(0);
  const scale = context.input(1);
  const mean = context.input(3);
  const deviation = emit.unary(
    "Sqrt",
    emit.add(context.input(4), emit.float(floatAttribute(node, "epsilon", 1e-5))),
  );
  const inverse = emit.unary("Reciprocal", deviation);
  const perChannel = [scale.dims[0]!, ...x.dims.slice(2).map(() => 1)];
  const axes = x.dims.map((_, axis) => axis).filter((axis) => axis !== 1);
  const sum = (value: Value) => emit.reduceSum(value, axes, false);
  const dYSum = context.needs(1) || context.needs(2) ? sum(dY) : undefined;
  return [
    context.needs(0) ? emit.mul(dY, emit.reshape(emit.mul(scale, inverse), perChannel)) : undefined,
    context.needs(1) ? emit.mul(inverse, emit.sub(sum(emit.mul(dY, x)), emit.mul(mean, dYSum!))) : undefined,
    context.needs(2) ? dYSum : undefined,
  ];
};

/** LayerNormalization (opset 17) over the axes from `axis` on, in closed form (Ba et al. 2016). */
export const layerNormalizationGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const dY = outputGradient(context);
  const x = context.input(0);
  const scale = context.input(1);
  const axis = positiveAxis(intAttribute(node, "axis", -1), x.dims.length);
  const axes = x.dims.map((_, at) => at).slice(axis);
  const statistics = x.dims.map((dim, at) => (at < axis ? dim : 1));
  const mean = emit.extraOutput(node, 1, statistics);
  const inverse = emit.extraOutput(node, 2, statistics);
  const normalized = emit.mul(emit.sub(x, mean), inverse);
  const average = (value: Value) => averageOver(emit, value, axes);
  let dX;
  if (context.needs(0)) {
    const inner = emit.mul(dY, scale);
    const projection = emit.mul(normalized, average(emit.mul(inner, normalized)));
    dX = emit.mul(inverse, emit.sub(emit.sub(inner, average(inner)), projection));
  }
  return [
    dX,
    context.needs(1) ? emit.unbroadcast(emit.mul(dY, normalized), scale.dims) : undefined,
    node.inputs[2] && context.needs(2) ? emit.unbroadcast(dY, context.input(2).dims) : undefined,
  ];
};

function averageOver(emit: Emitter, value: Value, axes: readonly number[]): Value {
  const count = axes.reduce((product, axis) => product * value.dims[axis]!, 1);
  return emit.scale(emit.reduceSum(value, axes, true), 1 / count);
}

/** Softmax: dX = y (dY - sum(dY y)). */
export const softmaxGradient: GradientRule = (context) => {
  const { emit } = context;
  const dY = outputGradient(context);
  const y = context.output(0);
  const axis = positiveAxis(intAttribute(context.node, "axis", -1), y.dims.length);
  return [emit.mul(y, emit.sub(dY, emit.reduceSum(emit.mul(dY, y), [axis], true)))];
};

/** LogSoftmax: dX = dY - exp(y) sum(dY). */
export const logSoftmaxGradient: GradientRule = (context) => {
  const { emit } = context;
  const dY = outputGradient(context);
  const y = context.output(0);
  const axis = positiveAxis(intAttribute(context.node, "axis", -1), y.dims.length);
  return [emit.sub(dY, emit.mul(emit.unary("Exp", y), emit.reduceSum(dY, [axis], true)))];
};
