import { FieldloopError } from "@fieldloop/protocol";
import type {
  GraphProto,
  ModelProto,
  TensorShapeProto_Dimension,
  ValueInfoProto,
} from "./generated/onnx_pb.js";
import { consumerMap, definedNames, initializerMap, storedTensors } from "./graph.js";
import { graphOf } from "./model.js";
import { int64Tensor, tensorToInt64Numbers } from "./tensor.js";

/**
 * Gives symbolic dimensions a size, in place: keys are symbols (`batch`), or `tensor:axis` (`input:0`) where a dimension
 * has no name. Shapes of inner tensors that the file states are dropped, since they may no longer hold.
 * @throws FieldloopError `not_found` for a key that names nothing, `invalid_argument` for a size or axis that cannot be
 */
export function fixDims(model: ModelProto, sizes: Readonly<Record<string, number>>): void {
  const graph = graphOf(model);
  for (const [key, size] of Object.entries(sizes)) {
    if (!Number.isInteger(size) || size < 1) {
      throw new FieldloopError(
        "invalid_argument",
        `Fix dimension "${key}": ${size}, wanted an integer of 1 and more`,
      );
    }
    const touched = bySymbol(graph, key, size) || byAxis(graph, key, size);
    if (!touched) {
      throw new FieldloopError(
        "not_found",
        `Fix dimension "${key}": no input has it, there are ${listDims(graph) || "none that are open"}`,
      );
    }
  }
  graph.valueInfo = [];
}

function bySymbol(graph: GraphProto, symbol: string, size: number): boolean {
  let touched = false;
  for (const info of [...graph.input, ...graph.output]) {
    for (const dim of dimsOf(info)) {
      if (dim.value.case !== "dimParam" || dim.value.value !== symbol) continue;
      dim.value = { case: "dimValue", value: BigInt(size) };
      touched = true;
    }
  }
  return touched;
}

function byAxis(graph: GraphProto, key: string, size: number): boolean {
  const colon = key.lastIndexOf(":");
  const info = graph.input.find((input) => input.name === key.slice(0, colon));
  const dim = info && dimsOf(info)[Number(key.slice(colon + 1))];
  if (colon < 0 || dim === undefined) return false;
  if (dim.value.case === "dimValue" && dim.value.value > 0n && dim.value.value !== BigInt(size)) {
    throw new FieldloopError(
      "invalid_argument",
      `Fix dimension "${key}": the file says ${dim.value.value}, not ${size}`,
    );
  }
  dim.value = { case: "dimValue", value: BigInt(size) };
  return true;
}

function listDims(graph: GraphProto): string {
  const open = graph.input.flatMap((input) =>
    dimsOf(input).flatMap((dim, axis) => {
      if (dim.value.case === "dimParam" && dim.value.value !== "") return [dim.value.value];
      return dim.value.case === "dimValue" && dim.value.value > 0n ? [] : [`${input.name}:${axis}`];
    }),
  );
  return [...new Set(open)].join(", ");
}

export interface BatchReport {
  /** Inputs and outputs whose first dimension was set. */
  readonly changed: readonly string[];
  /** Reshape nodes whose stored shape followed. */
  readonly reshaped: readonly string[];
}

const BATCH_SYMBOL = "batch";

/**
 * Makes the first dimension of inputs and outputs open or fixes it, in place, where it is open or has the size of the
 * first input's. Stored Reshape shapes that begin with the old size follow. Whether every node takes the new size shows
 * only in a run: try one.
 * @throws FieldloopError `invalid_argument` where the first input has no dimension
 */
export function setBatch(model: ModelProto, batch: number | "dynamic"): BatchReport {
  const graph = graphOf(model);
  const stored = initializerMap(graph);
  const signature = [...graph.input.filter((input) => !stored.has(input.name)), ...graph.output];
  const first = signature[0] && dimsOf(signature[0])[0];
  if (first === undefined)
    throw new FieldloopError("invalid_argument", "Set batch: the first input has no dimensions");
  const before = first.value.case === "dimValue" ? Number(first.value.value) : undefined;
  const changed: string[] = [];
  for (const info of signature) {
    const dim = dimsOf(info)[0];
    if (dim === undefined) continue;
    const size = dim.value.case === "dimValue" ? Number(dim.value.value) : undefined;
    if (size !== undefined && size > 0 && size !== before) continue;
    dim.value =
      batch === "dynamic"
        ? { case: "dimParam", value: BATCH_SYMBOL }
        : { case: "dimValue", value: BigInt(batch) };
    changed.push(info.name);
  }
  graph.valueInfo = [];
  const reshaped = before === undefined || before === batch ? [] : followInReshapes(graph, before);
  return { changed, reshaped };
}

/** Where a stored shape begins with the old batch size, the first entry becomes "the rest", or "as in the input". */
function followInReshapes(graph: GraphProto, before: number): string[] {
  const stored = storedTensors(graph);
  const constant = new Set(stored.keys());
  const readers = consumerMap(graph);
  const taken = definedNames(graph);
  const reshaped: string[] = [];
  for (const node of graph.node) {
    const shape = stored.get(node.input[1] ?? "");
    if (node.opType !== "Reshape" || shape === undefined || constant.has(node.input[0] ?? "")) continue;
    const sizes = tensorToInt64Numbers(shape);
    if (sizes[0] !== before) continue;
    sizes[0] = sizes.includes(-1) ? 0 : -1;
    const isShared = (readers.get(node.input[1]!) ?? []).length > 1;
    let name = node.input[1]!;
    for (let count = 1; isShared || taken.has(name); count++) {
      name = `${node.input[1]}/batch${count}`;
      if (!taken.has(name)) break;
    }
    taken.add(name);
    graph.initializer.push(int64Tensor(name, [sizes.length], sizes));
    node.input[1] = name;
    reshaped.push(node.name || node.output[0]!);
  }
  return reshaped;
}

function dimsOf(info: ValueInfoProto): TensorShapeProto_Dimension[] {
  const value = info.type?.value;
  return value?.case === "tensorType" ? (value.value.shape?.dim ?? []) : [];
}
