import { create } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import type { Backend } from "../backend.js";
import {
  OperatorSetIdProtoSchema,
  TensorProto_DataType,
  TensorProtoSchema,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import { definedNames, subgraphsOf } from "../onnx/graph.js";
import type { FoldModel } from "./types.js";

/** What every conversion that needs no calibration is told. */
export interface ConvertOptions {
  readonly backend: Backend;
  readonly fold: FoldModel;
  /** Names of nodes, or of tensors they write, that stay as they are. */
  readonly keepFloat?: readonly string[];
}

/** A node that could have been converted and was not. */
export interface LeftNode {
  readonly node: string;
  readonly operator: string;
  readonly reason: string;
}

export interface ConvertResult {
  readonly bytes: Uint8Array;
  /** Nodes that were rewritten. */
  readonly converted: readonly string[];
  readonly left: readonly LeftNode[];
  readonly warnings: readonly string[];
}

/** Hands out names that no graph of a model has. */
export class NameSource {
  readonly #taken = new Set<string>();

  constructor(graph: GraphProto) {
    this.#collect(graph);
  }

  unique(stem: string): string {
    let name = stem;
    for (let count = 1; this.#taken.has(name); count++) name = `${stem}_${count}`;
    this.#taken.add(name);
    return name;
  }

  #collect(graph: GraphProto): void {
    for (const name of definedNames(graph)) this.#taken.add(name);
    for (const node of graph.node) for (const inner of subgraphsOf(node)) this.#collect(inner);
  }
}

export function labelOf(node: NodeProto): string {
  return node.name || node.output.find((name) => name !== "") || node.opType;
}

export function isKept(node: NodeProto, keepFloat: ReadonlySet<string>): boolean {
  return keepFloat.has(node.name) || node.output.some((name) => keepFloat.has(name));
}

const SIMILAR_MAX = 5;

/**
 * @throws FieldloopError `not_found` for a name that neither a node nor a tensor has: what was to stay in float would be converted without a
 * word. Folding renames and merges nodes, so that names of the file as it came may be gone.
 */
export function requireNames(graph: GraphProto, keepFloat: readonly string[] = []): void {
  if (keepFloat.length === 0) return;
  const known = new Set(namesOf(graph));
  const unknown = keepFloat.find((name) => !known.has(name));
  if (unknown === undefined) return;
  const similar = [...known].filter((name) => name.includes(unknown) || unknown.includes(name));
  const hint =
    similar.length === 0
      ? "the report names them as they are after folding"
      : `there is ${similar
          .slice(0, SIMILAR_MAX)
          .map((name) => `"${name}"`)
          .join(", ")}`;
  throw new FieldloopError("not_found", `Leave in float: no node or tensor "${unknown}"; ${hint}`);
}

function namesOf(graph: GraphProto): string[] {
  return graph.node.flatMap((node) => [node.name, ...node.output, ...subgraphsOf(node).flatMap(namesOf)]);
}

/** Makes a model import a domain, at `version` or later. */
export function importDomain(model: ModelProto, domain: string, version: number): void {
  const found = model.opsetImport.find((entry) => entry.domain === domain);
  if (found) {
    if (found.version < BigInt(version)) found.version = BigInt(version);
  } else {
    model.opsetImport.push(create(OperatorSetIdProtoSchema, { domain, version: BigInt(version) }));
  }
}

/** A float16 tensor from its bits. */
export function float16Tensor(name: string, dims: readonly number[], data: Uint16Array): TensorProto {
  return create(TensorProtoSchema, {
    name,
    dataType: TensorProto_DataType.FLOAT16,
    dims: dims.map(BigInt),
    rawData: new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength),
  });
}

/** A copy of a matrix [rows, columns] as [columns, rows]. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column]!;
    }
  }
  return result;
}
