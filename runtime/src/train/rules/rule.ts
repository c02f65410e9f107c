import { FieldloopError } from "@fieldloop/protocol";
import type { Emitter, Value } from "../emitter.js";
import type { TrainNode } from "../graph.js";

/** What a gradient rule sees of one node. */
export interface RuleContext {
  readonly emit: Emitter;
  readonly node: TrainNode;
  input(index: number): Value;
  output(index: number): Value;
  /** Gradient of the loss by output `index`; undefined when the loss does not depend on that output. */
  gradient(index: number): Value | undefined;
  /** True when input `index` leads to something that is trained. */
  needs(index: number): boolean;
}

/** Appends the gradient of one operator; gives one value per input, undefined where none is needed. */
export type GradientRule = (context: RuleContext) => readonly (Value | undefined)[];

/** Gradient of output 0, which every rule called has. */
export function outputGradient(context: RuleContext): Value {
  const found = context.gradient(0);
  if (!found) throw refuse(context.node, "the loss depends only on its second output");
  return found;
}

export function refuse(node: TrainNode, reason: string): FieldloopError {
  return new FieldloopError(
    "training_unsupported_op",
    `Build gradients: node "${node.name}" (${node.op}): ${reason}`,
    { detail: { node: node.name, op: node.op } },
  );
}

/** Axis counted from the end made positive. */
export function positiveAxis(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}
