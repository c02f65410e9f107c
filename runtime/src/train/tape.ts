import type { Emitter, Value } from "./emitter.js";
import type { TrainNode } from "./graph.js";
import { refuse, type RuleContext } from "./rules/rule.js";
import { GRADIENT_RULES } from "./rules/table.js";

/** Values that depend on one of `roots`, walking forward. */
export function dependents(nodes: readonly TrainNode[], roots: Iterable<string>): Set<string> {
  const found = new Set(roots);
  for (const node of nodes) {
    if (!node.inputs.some((input) => found.has(input))) continue;
    for (const output of node.outputs) if (output) found.add(output);
  }
  return found;
}

/**
 * Reverse mode: appends the gradient of every tensor in `wanted`, starting from the gradients of some values
 * (`seeds`), back over the nodes of `forward`. A value used more than once sums its gradients; a tensor that the seeds
 * do not depend on is missing from the result. Throws `training_unsupported_op` with the node's name where an operator
 * on the way has no rule.
 */
export function appendGradients(
  forward: readonly TrainNode[],
  emit: Emitter,
  seeds: ReadonlyMap<string, Value>,
  wanted: readonly string[],
): Map<string, Value> {
  const active = dependents(forward, wanted);
  const gradients = new Map<string, Value>();
  const accumulate = (name: string, gradient: Value) => {
    const known = gradients.get(name);
    gradients.set(name, known ? emit.add(known, gradient) : gradient);
  };
  for (const [name, seed] of seeds) accumulate(name, seed);
  for (let at = forward.length - 1; at >= 0; at--) {
    const node = forward[at]!;
    if (!node.inputs.some((input) => active.has(input))) continue;
    if (!node.outputs.some((output) => gradients.has(output))) continue;
    const rule = GRADIENT_RULES[node.op];
    if (!rule) throw refuse(node, "no gradient rule for this operator");
    const results = rule(contextOf(emit, node, gradients, active));
    results.forEach((gradient, index) => {
      const input = node.inputs[index];
      if (gradient && input && active.has(input)) accumulate(input, gradient);
    });
  }
  const found = new Map<string, Value>();
  for (const name of wanted) {
    const gradient = gradients.get(name);
    if (gradient) found.set(name, gradient);
  }
  return found;
}

function contextOf(
  emit: Emitter,
  node: TrainNode,
  gradients: ReadonlyMap<string, Value>,
  active: ReadonlySet<string>,
): RuleContext {
  return {
    emit,
    node,
    input: (index) => emit.value(node.inputs[index]!),
    output: (index) => emit.value(node.outputs[index]!),
    gradient: (index) => gradients.get(node.outputs[index]!),
    needs: (index) => active.has(node.inputs[index]!),
  };
}
