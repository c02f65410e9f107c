import { FieldloopError } from "@fieldloop/protocol";
import { intTensor, type Attribute, type TrainGraph, type TrainNode } from "./graph.js";
import { GRADIENT_RULES } from "./rules/table.js";

/** Opset of the training graph: its own operators are written for this one. */
const TRAINING_OPSET = 20;

/** Operators without a gradient that mean the same from opset 13 on, allowed where nothing trained lies below. */
const FORWARD_ONLY = new Set(
  (
    "And ArgMax ArgMin Cast Ceil ConstantOfShape Cos Elu Equal Floor GlobalMaxPool Greater GreaterOrEqual " +
    "InstanceNormalization Less LessOrEqual LRN Max Min Not Or Range Reciprocal ReduceMax ReduceMin Round Selu " +
    "Shape Sign Sin Size Softsign Tile TopK Where Xor"
  ).split(" "),
);

const REDUCTIONS = new Set(["ReduceMean", "ReduceMax", "ReduceMin"]);

/**
 * Brings a graph of opset 13 or later to the training opset: one graph has one opset. Refuses by name what the engine
 * does not know (`training_unsupported_op`).
 */
export function upgradeGraph(graph: TrainGraph): TrainGraph {
  const nodes = graph.nodes.map((node) => {
    if (!GRADIENT_RULES[node.op] && !FORWARD_ONLY.has(node.op)) {
      throw new FieldloopError(
        "training_unsupported_op",
        `Prepare training: node "${node.name}" has operator "${node.op}", which the training engine does not know`,
        { detail: { node: node.name, op: node.op } },
      );
    }
    return graph.opset < 18 ? upgradeNode(node, graph) : node;
  });
  return { ...graph, opset: Math.max(TRAINING_OPSET, graph.opset), nodes };
}

/** Opset 18 made the axes of these reductions an input and asks Split for sizes or a count. */
function upgradeNode(node: TrainNode, graph: TrainGraph): TrainNode {
  if (REDUCTIONS.has(node.op)) {
    const { axes, ...attributes } = node.attributes;
    if (!axes || !("ints" in axes)) return node;
    const name = `training/${node.name}/${node.outputs[0]}/axes`;
    graph.constants.set(name, intTensor(axes.ints));
    return { ...node, inputs: [node.inputs[0]!, name], attributes };
  }
  if (node.op === "Split" && !node.inputs[1]) {
    const attributes: Record<string, Attribute> = {
      ...node.attributes,
      num_outputs: { i: node.outputs.length },
    };
    return { ...node, attributes };
  }
  return node;
}
