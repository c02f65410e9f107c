import { FieldloopError, type ErrorCode } from "@fieldloop/protocol";
import type { FunctionProto, GraphProto, ModelProto, NodeProto } from "./generated/onnx_pb.js";
import { subgraphsOf } from "./graph.js";
import { ONNX_LIMITS } from "./limits.js";

/** What calls of local functions cost. */
export interface FunctionTable {
  /** Nodes that one call becomes, by {@link functionKey}. */
  readonly nodeCounts: ReadonlyMap<string, number>;
}

export function functionKey(domain: string, name: string): string {
  return `${domain === "ai.onnx" ? "" : domain}:${name}`;
}

/**
 * Counts what the local functions of a file expand to. The engine writes every call out, so functions that call each
 * other grow exponentially and a cycle never ends (onnx/docs/IR.md, "Functions"): both are refused before it sees them.
 * @throws FieldloopError `onnx_malformed` for a name that is defined twice, `onnx_too_deep` for a chain beyond the limit or a cycle
 */
export function functionTable(model: ModelProto): FunctionTable {
  const bodies = new Map<string, FunctionProto>();
  for (const body of model.functions) {
    const key = functionKey(body.domain, body.name);
    if (bodies.has(key)) {
      throw refuse("onnx_malformed", `local function "${body.domain}.${body.name}" occurs twice`);
    }
    bodies.set(key, body);
  }
  const nodeCounts = new Map<string, number>();
  /** Local functions below one: known counts must not hide how deep a chain is. */
  const depths = new Map<string, number>();
  const countOf = (key: string, depth: number): number => {
    const body = bodies.get(key);
    if (body === undefined) return 1;
    if (depth + (depths.get(key) ?? 0) > ONNX_LIMITS.functionDepthMax) {
      throw refuse(
        "onnx_too_deep",
        `local function "${body.domain}.${body.name}" is called through more than ${ONNX_LIMITS.functionDepthMax} others, or calls itself`,
      );
    }
    const known = nodeCounts.get(key);
    if (known !== undefined) return known;
    let count = 0;
    let below = 0;
    for (const node of nodesWithin(body)) {
      const called = functionKey(node.domain, node.opType);
      count += countOf(called, depth + 1);
      if (bodies.has(called)) below = Math.max(below, 1 + (depths.get(called) ?? 0));
    }
    depths.set(key, below);
    nodeCounts.set(key, count);
    return count;
  };
  for (const key of bodies.keys()) countOf(key, 0);
  return { nodeCounts };
}

function nodesWithin(graph: FunctionProto | GraphProto): NodeProto[] {
  return graph.node.flatMap((node) => [node, ...subgraphsOf(node).flatMap(nodesWithin)]);
}

function refuse(code: ErrorCode, what: string): FieldloopError {
  return new FieldloopError(code, `Check ONNX: ${what}`);
}
