import { clone, create } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { valueInfo } from "./builder.js";
import {
  GraphProtoSchema,
  ModelProtoSchema,
  ValueInfoProtoSchema,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type ValueInfoProto,
} from "./generated/onnx_pb.js";
import { attribute, intsAttribute, namesRead, producerMap } from "./graph.js";
import { graphOf } from "./model.js";

/** Type and shape of inner tensors by name, where the file does not state them: what `inferTensors` of `./node` gives. */
export type KnownTensors = ReadonlyMap<string, TensorInfo>;

/**
 * Adds an inner tensor to the outputs, in place: an embedding, say. A tensor that is an output already stays one.
 * Where neither the file nor `known` states its type, the output goes without one and the engine infers it.
 * @throws FieldloopError `not_found` where the graph has no such tensor
 */
export function exposeTensor(model: ModelProto, name: string, known?: KnownTensors): void {
  const graph = graphOf(model);
  if (graph.output.some((output) => output.name === name)) return;
  if (!producerMap(graph).has(name)) {
    throw new FieldloopError("not_found", `Expose tensor "${name}": no node of the graph writes it`);
  }
  graph.output.push(infoOf(graph, name, known) ?? create(ValueInfoProtoSchema, { name }));
}

/**
 * The tensor that the last weighted layer reads (MatMul, Gemm or 1×1 convolution with stored weights): what the network
 * knows about its input just before it decides. `undefined` where there is no such layer, or it reads an input.
 */
export function embeddingCandidate(model: ModelProto, output?: string): string | undefined {
  const graph = graphOf(model);
  const producers = producerMap(graph);
  const stored = storedNames(graph);
  const pending = [output ?? graph.output[0]?.name ?? ""];
  const seen = new Set(pending);
  for (let name = pending.shift(); name !== undefined; name = pending.shift()) {
    const node = producers.get(name);
    if (node === undefined) continue;
    const weight = node.input[1] ?? "";
    if (isDense(node, graph) && stored.has(weight) && !stored.has(node.input[0] ?? "")) {
      const read = node.input[0]!;
      return producers.has(read) ? read : undefined;
    }
    for (const next of node.input) {
      if (next === "" || seen.has(next) || stored.has(next)) continue;
      seen.add(next);
      pending.push(next);
    }
  }
  return undefined;
}

export interface ExtractOptions {
  /** Tensors at which the part begins; inputs of the whole model that it needs besides are added. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly known?: KnownTensors;
}

/**
 * The part of a model between two sets of tensors, as a model of its own; the original stays as it is. Weights are
 * shared with it, not copied.
 * @throws FieldloopError `not_found` for a tensor that the graph does not have, `invalid_argument` where an input's type is not known
 */
export function extractModel(model: ModelProto, options: ExtractOptions): ModelProto {
  const graph = graphOf(model);
  const { nodes, inputs } = nodesBetween(graph, options.inputs, options.outputs);
  const part = create(GraphProtoSchema, { name: graph.name || "main" });
  part.node = nodes;
  part.input = inputs.map((name) => {
    const info = infoOf(graph, name, options.known);
    if (info?.type === undefined) {
      throw new FieldloopError(
        "invalid_argument",
        `Extract graph: the file does not state type and shape of "${name}"; infer them first`,
      );
    }
    return info;
  });
  part.output = options.outputs.map(
    (name) => infoOf(graph, name, options.known) ?? create(ValueInfoProtoSchema, { name }),
  );
  const named = new Set(nodes.flatMap((node) => [...namesRead(node), ...node.output]));
  for (const name of options.outputs) named.add(name);
  part.initializer = graph.initializer.filter((tensor) => named.has(tensor.name));
  const signature = new Set([...part.input, ...part.output].map((info) => info.name));
  part.valueInfo = graph.valueInfo.filter((info) => named.has(info.name) && !signature.has(info.name));
  const { $typeName: _, graph: __, ...header } = model;
  return create(ModelProtoSchema, { ...header, graph: part });
}

/** One model of a split, with the tensors that it takes and gives. */
export interface ModelPart {
  readonly model: ModelProto;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

export interface SplitModel {
  /** From the inputs of the whole to the tensors of the cut, and to the outputs that need none of them. */
  readonly backbone: ModelPart;
  /** From the cut to the other outputs. Outputs that share a node behind the cut share a head. */
  readonly heads: readonly ModelPart[];
}

/**
 * Cuts a model at `tensors` into a backbone and the heads behind it. Each node computes what it computed in the whole,
 * so the parts compose to the same outputs bit for bit, except where the engine fuses nodes across the cut in the whole.
 * @throws FieldloopError `not_found`, `invalid_argument` where no output lies behind the cut or types are not known
 */
export function splitModel(model: ModelProto, tensors: readonly string[], known?: KnownTensors): SplitModel {
  const graph = graphOf(model);
  const cut = new Set(tensors);
  const produced = producerMap(graph);
  const missing = tensors.find((name) => !produced.has(name));
  if (missing !== undefined) {
    throw new FieldloopError("not_found", `Split model at "${missing}": no node of the graph writes it`);
  }
  const behind: { output: string; nodes: Set<NodeProto> }[] = [];
  const before: string[] = [];
  for (const { name } of graph.output) {
    const { nodes, reached } = nodesBetween(graph, tensors, [name]);
    if (cut.has(name) || reached.size === 0) before.push(name);
    else behind.push({ output: name, nodes: new Set(nodes) });
  }
  if (behind.length === 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Split model at ${tensors.map((name) => `"${name}"`).join(", ")}: no output lies behind it`,
    );
  }
  const part = (inputs: readonly string[], outputs: readonly string[]): ModelPart => {
    const extracted = extractModel(model, { inputs, outputs, ...(known === undefined ? {} : { known }) });
    return { model: extracted, inputs: graphOf(extracted).input.map((info) => info.name), outputs };
  };
  return {
    backbone: part([], [...cut, ...before.filter((name) => !cut.has(name))]),
    heads: mergeOverlapping(behind).map((outputs) => part(tensors, outputs)),
  };
}

/** Groups of outputs whose nodes overlap, in the order of the outputs. */
function mergeOverlapping(parts: readonly { output: string; nodes: Set<NodeProto> }[]): string[][] {
  const groups: { outputs: string[]; nodes: Set<NodeProto> }[] = [];
  for (const { output, nodes } of parts) {
    const shared = groups.filter((group) => [...nodes].some((node) => group.nodes.has(node)));
    const [first, ...rest] = shared;
    if (first === undefined) {
      groups.push({ outputs: [output], nodes: new Set(nodes) });
      continue;
    }
    for (const group of [{ outputs: [output], nodes }, ...rest]) {
      first.outputs.push(...group.outputs);
      for (const node of group.nodes) first.nodes.add(node);
      const at = groups.findIndex((entry) => entry === group);
      if (at >= 0) groups.splice(at, 1);
    }
  }
  const position = new Map(parts.map((part, at) => [part.output, at]));
  return groups.map(({ outputs }) => outputs.sort((a, b) => position.get(a)! - position.get(b)!));
}

/** Nodes that `outputs` need when `starts` are given, in graph order, and the names that must be fed. */
function nodesBetween(
  graph: GraphProto,
  starts: readonly string[],
  outputs: readonly string[],
): { nodes: NodeProto[]; inputs: string[]; reached: ReadonlySet<string> } {
  const producers = producerMap(graph);
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  const fed = new Set(graph.input.map((input) => input.name).filter((name) => !stored.has(name)));
  const given = new Set(starts);
  const live = new Set<NodeProto>();
  const needed = new Set<string>();
  const reached = new Set<string>();
  const pending = [...outputs];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (given.has(name)) {
      reached.add(name);
      continue;
    }
    const node = producers.get(name);
    if (node === undefined) {
      if (fed.has(name)) needed.add(name);
      else if (!stored.has(name)) {
        throw new FieldloopError("not_found", `Extract graph: no tensor "${name}"`);
      }
      continue;
    }
    if (live.has(node)) continue;
    live.add(node);
    for (const read of namesRead(node)) {
      // Names that only the node's own bodies define are nothing of this graph.
      if (producers.has(read) || fed.has(read) || stored.has(read) || given.has(read)) pending.push(read);
    }
  }
  const nodes = graph.node.filter((node) => live.has(node));
  const order = [...starts.filter((name) => reached.has(name)), ...fed];
  return { nodes, inputs: order.filter((name) => reached.has(name) || needed.has(name)), reached };
}

function infoOf(graph: GraphProto, name: string, known?: KnownTensors): ValueInfoProto | undefined {
  const info = known?.get(name);
  const stated = [...graph.input, ...graph.output, ...graph.valueInfo].find((entry) => entry.name === name);
  if (stated?.type !== undefined) return clone(ValueInfoProtoSchema, stated);
  if (info === undefined) return undefined;
  const dims = info.dims.map((size, at) =>
    typeof size === "number" && size < 0 ? `${name}_${at}` : size === "" ? `${name}_${at}` : size,
  );
  // No dimensions mean a scalar or an unknown rank; without a shape both are allowed.
  return valueInfo(name, info.type, dims.length === 0 ? undefined : dims);
}

/** Names of tensors that hang on no input: initializers, and what nodes make of them alone. */
export function storedNames(graph: GraphProto): ReadonlySet<string> {
  const stored = new Set(graph.initializer.map((tensor) => tensor.name));
  for (const node of graph.node) {
    const reads = [...namesRead(node)];
    if (reads.every((name) => stored.has(name))) for (const name of node.output) stored.add(name);
  }
  return stored;
}

/** A layer with weights: a convolution of any size, or a matrix product. */
export function isWeighted(node: NodeProto, graph: GraphProto): boolean {
  return ["Conv", "FusedConv", "ConvTranspose"].includes(node.opType) || isDense(node, graph);
}

function isDense(node: NodeProto, graph: GraphProto): boolean {
  if (["MatMul", "Gemm", "FusedGemm", "FusedMatMul", "MatMulNBits"].includes(node.opType)) return true;
  if (node.opType !== "Conv" && node.opType !== "FusedConv") return false;
  const kernel =
    intsAttribute(node, "kernel_shape") ??
    graph.initializer
      .find((tensor) => tensor.name === node.input[1])
      ?.dims.slice(2)
      .map(Number);
  const group = attribute(node, "group")?.i ?? 1n;
  return group === 1n && kernel !== undefined && kernel.every((size) => size === 1);
}
