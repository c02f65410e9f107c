import type { GraphProto, ModelProto } from "./generated/onnx_pb.js";
import { subgraphsOf } from "./graph.js";
import { graphOf } from "./model.js";

export interface TidyReport {
  /** Initializers that were also listed as graph inputs, and no longer are. */
  readonly inputsDropped: readonly string[];
  /** Operator domains that were imported and used by no node. */
  readonly domainsDropped: readonly string[];
  readonly docStringsDropped: number;
}

/**
 * Cleans a model in place: initializers stop being replaceable inputs (IR version 3 demanded both; it hides constants
 * from optimizers and clutters the signature), documentation strings and unused operator sets go. What the model
 * computes does not change.
 */
export function tidyModel(model: ModelProto): TidyReport {
  const graph = graphOf(model);
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  const inputsDropped = graph.input.map((input) => input.name).filter((name) => stored.has(name));
  if (inputsDropped.length > 0) graph.input = graph.input.filter((input) => !stored.has(input.name));
  // Initializers that are not inputs are legal from IR version 4 (onnx/docs/IR.md, "Graphs").
  if (model.irVersion < 4n) model.irVersion = 4n;

  let docStringsDropped = 0;
  const strip = (holder: { docString: string }) => {
    if (!Object.hasOwn(holder, "docString")) return;
    // Deleted, not emptied: a field that is set to "" is still written (proto2 presence).
    Reflect.deleteProperty(holder, "docString");
    docStringsDropped++;
  };
  strip(model);
  const used = new Set<string>();
  const visit = (inner: GraphProto) => {
    strip(inner);
    for (const entry of [inner.input, inner.output, inner.valueInfo, inner.initializer].flat()) strip(entry);
    for (const node of inner.node) {
      used.add(plainDomain(node.domain));
      strip(node);
      node.attribute.forEach(strip);
      subgraphsOf(node).forEach(visit);
    }
  };
  visit(graph);
  for (const localFunction of model.functions) {
    for (const entry of localFunction.opsetImport) used.add(plainDomain(entry.domain));
  }
  const kept = model.opsetImport.filter(
    (entry) => plainDomain(entry.domain) === "" || used.has(plainDomain(entry.domain)),
  );
  const domainsDropped = model.opsetImport
    .filter((entry) => !kept.includes(entry))
    .map((entry) => entry.domain);
  model.opsetImport = kept;
  return { inputsDropped, domainsDropped, docStringsDropped };
}

function plainDomain(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}
