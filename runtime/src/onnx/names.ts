import type { GraphProto, ModelProto, NodeProto } from "./generated/onnx_pb.js";
import { subgraphsOf } from "./graph.js";
import { graphOf } from "./model.js";

/**
 * Gives every node without a name one, in place (`Conv:output`), so that whatever goes wrong later can say where.
 * @returns how many got one
 */
export function nameNodes(model: ModelProto): number {
  const taken = new Set<string>();
  const unnamed: NodeProto[] = [];
  const visit = (graph: GraphProto) => {
    for (const node of graph.node) {
      if (node.name === "") unnamed.push(node);
      else taken.add(node.name);
      subgraphsOf(node).forEach(visit);
    }
  };
  visit(graphOf(model));
  for (const node of unnamed) {
    const stem = `${node.opType}:${node.output.find((name) => name !== "") ?? ""}`.slice(0, 200);
    let name = stem;
    for (let count = 1; taken.has(name); count++) name = `${stem}_${count}`;
    taken.add(name);
    node.name = name;
  }
  return unnamed.length;
}
