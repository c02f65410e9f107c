import { FieldloopError } from "@fieldloop/protocol";
import type { Emitter, Value } from "./emitter.js";
import { sizeOf } from "./graph.js";

/** What is minimized; each has its gradient in closed form, which is exact where a chain of rules would saturate. */
export type LossKind = "cross_entropy" | "mse" | "binary_cross_entropy";

export interface LossGraph {
  /** Scalar: the mean over rows, weighted. */
  readonly loss: Value;
  /** Gradient of the loss by the model's output, in the output's shape. */
  readonly seed: Value;
}

/**
 * Appends a loss over rows. `target` is [batch, size] like the flattened output (for cross-entropy: class
 * probabilities that sum to 1); `rowWeights` is [batch, 1] and sums to 1, so padding rows weigh 0.
 */
export function appendLoss(
  emit: Emitter,
  kind: LossKind,
  output: Value,
  target: Value,
  rowWeights: Value,
  logitScale: number,
): LossGraph {
  const batch = rowWeights.dims[0]!;
  if (output.dims[0] !== batch) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Build loss: output "${output.name}" has shape [${output.dims.join()}], its first dimension must be the batch of ${batch}`,
    );
  }
  const flat = emit.reshape(output, [batch, sizeOf(output.dims) / batch]);
  const { loss, seed } = LOSSES[kind](emit, flat, target, rowWeights, logitScale);
  return { loss, seed: emit.reshape(seed, output.dims) };
}

type AppendLoss = (emit: Emitter, flat: Value, target: Value, weights: Value, scale: number) => LossGraph;

const LOSSES: Record<LossKind, AppendLoss> = {
  /** -sum w t log softmax(s z); by z: w s (softmax(s z) - t). */
  cross_entropy(emit, flat, target, weights, scale) {
    const logProbabilities = emit.unary("LogSoftmax", emit.scale(flat, scale), { axis: { i: -1 } });
    const weighted = emit.mul(emit.mul(target, logProbabilities), weights);
    const difference = emit.sub(emit.unary("Exp", logProbabilities), target);
    return {
      loss: emit.unary("Neg", total(emit, weighted)),
      seed: emit.mul(difference, emit.scale(weights, scale)),
    };
  },

  /** sum w mean (y - t)^2. */
  mse(emit, flat, target, weights) {
    const size = flat.dims[1]!;
    const difference = emit.sub(flat, target);
    const weighted = emit.mul(difference, emit.scale(weights, 1 / size));
    return { loss: total(emit, emit.mul(weighted, difference)), seed: emit.scale(weighted, 2) };
  },

  /** sum w mean (softplus(s z) - t s z), for several independent yes/no outputs. */
  binary_cross_entropy(emit, flat, target, weights, scale) {
    const size = flat.dims[1]!;
    const logits = emit.scale(flat, scale);
    const perElement = emit.sub(emit.unary("Softplus", logits), emit.mul(target, logits));
    const share = emit.scale(weights, 1 / size);
    return {
      loss: total(emit, emit.mul(perElement, share)),
      seed: emit.mul(emit.sub(emit.unary("Sigmoid", logits), target), emit.scale(share, scale)),
    };
  },
};

function total(emit: Emitter, x: Value): Value {
  return emit.reduceSum(
    x,
    x.dims.map((_, axis) => axis),
    false,
  );
}
