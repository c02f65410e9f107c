import type { Emitter, Value } from "../emitter.js";
import { floatAttribute, textAttribute } from "../graph.js";
import { outputGradient, refuse, type GradientRule, type RuleContext } from "./rule.js";

export const addGradient: GradientRule = (context) => {
  const dY = outputGradient(context);
  return [0, 1].map((index) =>
    context.needs(index) ? context.emit.unbroadcast(dY, context.input(index).dims) : undefined,
  );
};

export const subGradient: GradientRule = (context) => {
  const { emit } = context;
  const dY = outputGradient(context);
  return [
    context.needs(0) ? emit.unbroadcast(dY, context.input(0).dims) : undefined,
    context.needs(1) ? emit.unary("Neg", emit.unbroadcast(dY, context.input(1).dims)) : undefined,
  ];
};

export const mulGradient: GradientRule = (context) => {
  const { emit } = context;
  const dY = outputGradient(context);
  return [0, 1].map((index) =>
    context.needs(index)
      ? emit.unbroadcast(emit.mul(dY, context.input(1 - index)), context.input(index).dims)
      : undefined,
  );
};

export const divGradient: GradientRule = (context) => {
  const { emit } = context;
  const dY = outputGradient(context);
  const divisor = context.input(1);
  const scaled = emit.div(dY, divisor);
  return [
    context.needs(0) ? emit.unbroadcast(scaled, context.input(0).dims) : undefined,
    context.needs(1)
      ? emit.unary("Neg", emit.unbroadcast(emit.mul(scaled, context.output(0)), divisor.dims))
      : undefined,
  ];
};

/** A rule for y = f(x) from its derivative, written with x, y and the node's attributes. */
function pointwise(
  derivative: (emit: Emitter, x: Value, y: Value, context: RuleContext) => Value,
): GradientRule {
  return (context) => {
    const dY = outputGradient(context);
    return [context.emit.mul(dY, derivative(context.emit, context.input(0), context.output(0), context))];
  };
}

export const negGradient: GradientRule = (context) => [context.emit.unary("Neg", outputGradient(context))];
/** From Y, not X: the value before the activation may then be fused away. */
export const reluGradient = pointwise((emit, _, y) => emit.mask("Greater", y, emit.float(0)));
export const sigmoidGradient = pointwise((emit, _, y) => emit.mul(y, emit.sub(emit.float(1), y)));
export const tanhGradient = pointwise((emit, _, y) => emit.sub(emit.float(1), emit.mul(y, y)));
export const expGradient = pointwise((_, __, y) => y);
export const logGradient = pointwise((emit, x) => emit.unary("Reciprocal", x));
export const sqrtGradient = pointwise((emit, _, y) => emit.div(emit.float(0.5), y));
export const absGradient = pointwise((emit, x) => emit.unary("Sign", x));

export const leakyReluGradient = pointwise((emit, x, _, { node }) => {
  const alpha = floatAttribute(node, "alpha", 0.01);
  const above = emit.mask("Greater", x, emit.float(0));
  return emit.add(emit.scale(above, 1 - alpha), emit.float(alpha));
});

/** Gradient 1 strictly inside the bounds. A missing bound is open. */
export const clipGradient = pointwise((emit, x, y, context) => {
  const low = context.node.inputs[1] ? context.input(1) : undefined;
  const high = context.node.inputs[2] ? context.input(2) : undefined;
  const above = low ? emit.mask("Greater", x, low) : undefined;
  const below = high ? emit.mask("Less", x, high) : undefined;
  if (above && below) return emit.mul(above, below);
  return above ?? below ?? emit.mask("Equal", y, y);
});

export const hardSigmoidGradient = pointwise((emit, _, y, { node }) => {
  const inside = emit.mul(emit.mask("Greater", y, emit.float(0)), emit.mask("Less", y, emit.float(1)));
  return emit.scale(inside, floatAttribute(node, "alpha", 0.2));
});

/** HardSwish: x * clip(x/6 + 1/2, 0, 1). */
export const hardSwishGradient = pointwise((emit, x) => {
  const above = emit.mask("GreaterOrEqual", x, emit.float(3));
  const inside = emit.mul(emit.mask("Greater", x, emit.float(-3)), emit.mask("Less", x, emit.float(3)));
  return emit.add(above, emit.mul(inside, emit.add(emit.scale(x, 1 / 3), emit.float(0.5))));
});

export const softplusGradient = pointwise((emit, x) => emit.unary("Sigmoid", x));

/** d erf(x) / dx = 2/sqrt(pi) exp(-x^2). */
export const erfGradient = pointwise((emit, x) =>
  emit.scale(emit.unary("Exp", emit.unary("Neg", emit.mul(x, x))), 2 / Math.sqrt(Math.PI)),
);

/** Gelu (opset 20), exact form: Phi(x) + x phi(x). */
export const geluGradient = pointwise((emit, x, _, { node }) => {
  if (textAttribute(node, "approximate", "none") !== "none")
    throw refuse(node, "only approximate=none has a gradient");
  const half = emit.scale(emit.add(emit.unary("Erf", emit.scale(x, Math.SQRT1_2)), emit.float(1)), 0.5);
  const bell = emit.unary("Exp", emit.scale(emit.mul(x, x), -0.5));
  return emit.add(half, emit.scale(emit.mul(x, bell), 1 / Math.sqrt(2 * Math.PI)));
});

export const preluGradient: GradientRule = (context) => {
  const { emit } = context;
  const dY = outputGradient(context);
  const x = context.input(0);
  const slope = context.input(1);
  const above = emit.mask("Greater", x, emit.float(0));
  const below = emit.sub(emit.float(1), above);
  return [
    context.needs(0) ? emit.mul(dY, emit.add(above, emit.mul(below, slope))) : undefined,
    context.needs(1) ? emit.unbroadcast(emit.mul(emit.mul(dY, below), x), slope.dims) : undefined,
  ];
};

/** Pow with a constant scalar exponent. */
export const powGradient: GradientRule = (context) => {
  const { emit, node } = context;
  const exponent = emit.constantOf(node.inputs[1]!);
  if (!exponent || exponent.type !== "float32" || exponent.data.length !== 1) {
    throw refuse(node, "only a constant scalar exponent has a gradient");
  }
  const power = Number((exponent.data as Float32Array)[0]);
  const x = context.input(0);
  const lowered = power === 2 ? x : emit.binary("Pow", x, emit.float(power - 1));
  return [emit.mul(outputGradient(context), emit.scale(lowered, power))];
};
