import { FieldloopError, type ErrorCode } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { checkTensor } from "./check-tensor.js";
import { foreignFile } from "./foreign.js";
import { functionKey, functionTable, type FunctionTable } from "./functions.js";
import type { GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from "./generated/onnx_pb.js";
import { intsAttribute, nodeLabel, subgraphsOf, storedTensors } from "./graph.js";
import { graphSignature, type ForeignTensor } from "./inspect.js";
import { ONNX_LIMITS, OPSETS_MAX } from "./limits.js";
import { decodeModel, graphOf } from "./model.js";
import { tensorToInt64Numbers } from "./tensor.js";

/** What a model may be; every field left out takes its value from {@link ONNX_LIMITS}. */
export interface ModelLimits {
  readonly modelBytesMax?: number;
  readonly nodeCountMax?: number;
  readonly subgraphDepthMax?: number;
  /** Elements of one tensor that the file claims: initializers, constants, declared shapes. */
  readonly tensorElementsMax?: number;
  /**
   * If, Loop, Scan and other operators with graphs inside. Default true: exporters write them for ordinary networks. A Loop may never
   * return, so whatever runs a model needs a time limit on the process that runs it (docs/adr/0011).
   */
  readonly allowControlFlow?: boolean;
}

/** What the check learnt on its way. */
export interface ModelFacts {
  readonly bytes: number;
  readonly irVersion: number;
  /** Operator set versions by domain; the default domain is `""`. */
  readonly opsets: Readonly<Record<string, number>>;
  /** Nodes over all graphs. */
  readonly nodeCount: number;
  /** 0 when no node holds a graph. */
  readonly subgraphDepth: number;
  readonly hasControlFlow: boolean;
  /** Inputs that take no tensor of a plain element type (sequences, optionals, 4-bit integers): nothing can feed them. */
  readonly unfedInputs: readonly ForeignTensor[];
  /** Outputs that come as no tensor of a plain element type: left out of every result, and of `outputs`. */
  readonly omittedOutputs: readonly ForeignTensor[];
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

/** Domains whose operators ONNX Runtime itself has; others would need a library of the file's author. */
const ALLOWED_DOMAINS: ReadonlySet<string> = new Set(["", "ai.onnx", "ai.onnx.ml", "com.microsoft"]);
const CONTROL_FLOW: ReadonlySet<string> = new Set(["If", "Loop", "Scan", "SequenceMap"]);
/** Operators of allowed domains that open another file or run another engine. */
const REFUSED_OPERATORS: ReadonlySet<string> = new Set(["EPContext"]);

interface Walk {
  readonly limits: Required<ModelLimits>;
  readonly functions: FunctionTable;
  /** Attributes may refer to those of the call. */
  readonly insideFunction?: boolean;
  nodeCount: number;
  subgraphDepth: number;
  hasControlFlow: boolean;
}

/**
 * The gate before ONNX Runtime: parses the file with our own limits and refuses what a native parser should not be
 * offered. Parties: whoever wrote the file is not trusted; the caller runs what passes. Guards against parser and
 * kernel faults that need malformed structure, files read as weights (external data, EPContext), and claims of memory
 * that the file does not carry. It cannot tell whether a valid model crashes or hangs on some input: only a watchdog
 * on the process that runs it can.
 *
 * Throws `onnx_malformed`, `onnx_too_large`, `onnx_too_deep`, `onnx_external_data`, `onnx_unknown_domain` or
 * `onnx_unsupported`, each naming the node or tensor.
 */
export function checkModel(bytes: Uint8Array, limits: ModelLimits = {}): ModelFacts {
  const foreign = foreignFile(bytes);
  if (foreign !== undefined) throw refuse("onnx_malformed", `the file is ${foreign}, wanted ONNX`);
  const model = decodeModel(bytes, { modelBytesMax: limits.modelBytesMax ?? ONNX_LIMITS.modelBytesMax });
  const walk: Walk = {
    limits: {
      modelBytesMax: limits.modelBytesMax ?? ONNX_LIMITS.modelBytesMax,
      nodeCountMax: limits.nodeCountMax ?? ONNX_LIMITS.nodeCountMax,
      subgraphDepthMax: limits.subgraphDepthMax ?? ONNX_LIMITS.subgraphDepthMax,
      tensorElementsMax: limits.tensorElementsMax ?? ONNX_LIMITS.tensorElementsMax,
      allowControlFlow: limits.allowControlFlow ?? true,
    },
    functions: functionTable(model),
    nodeCount: 0,
    subgraphDepth: 0,
    hasControlFlow: false,
  };
  const opsets = checkHeader(model);
  checkFunctions(model, walk);
  const graph = graphOf(model);
  checkGraph(graph, [], walk);
  return {
    bytes: bytes.length,
    irVersion: Number(model.irVersion),
    opsets,
    nodeCount: walk.nodeCount,
    subgraphDepth: walk.subgraphDepth,
    hasControlFlow: walk.hasControlFlow,
    ...graphSignature(graph),
  };
}

function checkHeader(model: ModelProto): Record<string, number> {
  // No prototype: a domain may have any name.
  const opsets = Object.create(null) as Record<string, number>;
  for (const entry of model.opsetImport) {
    const domain = entry.domain === "ai.onnx" ? "" : entry.domain;
    checkName(domain, "operator set domain", true);
    if (Object.hasOwn(opsets, domain))
      throw refuse("onnx_malformed", `operator set "${entry.domain}" is imported twice`);
    opsets[domain] = Number(entry.version);
    const newest = OPSETS_MAX[domain];
    if (newest !== undefined && opsets[domain] > newest) {
      throw refuse(
        "onnx_unsupported",
        `the file needs operator set ${opsets[domain]} of "${domain || "ai.onnx"}", the newest with kernels is ${newest}; export it for ${newest} or older`,
      );
    }
  }
  if (model.opsetImport.length === 0) throw refuse("onnx_malformed", "no operator set is imported");
  if (model.trainingInfo.length > 0) throw refuse("onnx_unsupported", "training information in the file");
  return opsets;
}

/** Bodies of local functions: the engine writes them out where they are called, so their nodes count there (see `functions.ts`). */
function checkFunctions(model: ModelProto, walk: Walk): void {
  // A function that nothing calls is read by the engine as well.
  let nodeCount = 0;
  for (const body of model.functions) {
    checkName(body.name, "local function");
    checkName(body.domain, `domain of local function "${body.name}"`, true);
    const names = new Set(body.input);
    for (const node of body.node) {
      for (const name of node.output) {
        if (name !== "" && names.has(name)) {
          throw refuse("onnx_malformed", `${nodeLabel(node)} writes "${name}", which is written already`);
        }
        names.add(name);
      }
    }
    const inside: Walk = { ...walk, insideFunction: true, nodeCount: nodeCount + body.node.length };
    if (inside.nodeCount > walk.limits.nodeCountMax) {
      throw refuse(
        "onnx_too_large",
        `${inside.nodeCount} nodes by local function "${body.name}", at most ${walk.limits.nodeCountMax} allowed`,
      );
    }
    for (const info of body.valueInfo) checkShape(info, walk);
    const of = `local function "${body.name}"`;
    checkAttributes(body.attributeProto, of, inside);
    if (body.attributeProto.some((entry) => entry.g !== undefined || entry.graphs.length > 0)) {
      throw refuse("onnx_unsupported", `a graph as an attribute's default in ${of}`);
    }
    const constants = storedTensors(body);
    for (const node of body.node) checkNode(node, constants, [names], inside);
    walk.subgraphDepth = Math.max(walk.subgraphDepth, inside.subgraphDepth);
    walk.hasControlFlow ||= inside.hasControlFlow;
    nodeCount = inside.nodeCount;
    for (const name of body.output) {
      if (!names.has(name)) {
        throw refuse(
          "onnx_malformed",
          `output "${name}" of local function "${body.name}" is written by no node`,
        );
      }
    }
  }
}

/** `scopes` are the names that the surrounding graphs define, outermost first: its length is the depth. */
function checkGraph(graph: GraphProto, scopes: readonly ReadonlySet<string>[], walk: Walk): void {
  const depth = scopes.length;
  if (depth > walk.limits.subgraphDepthMax) {
    throw refuse(
      "onnx_too_deep",
      `graph "${graph.name}" is ${depth} levels deep, at most ${walk.limits.subgraphDepthMax} allowed`,
    );
  }
  walk.subgraphDepth = Math.max(walk.subgraphDepth, depth);
  for (const node of graph.node)
    walk.nodeCount += walk.functions.nodeCounts.get(functionKey(node.domain, node.opType)) ?? 1;
  if (walk.nodeCount > walk.limits.nodeCountMax) {
    throw refuse(
      "onnx_too_large",
      `${walk.nodeCount} nodes by graph "${graph.name}", at most ${walk.limits.nodeCountMax} allowed`,
    );
  }
  if (graph.sparseInitializer.length > 0) {
    throw refuse("onnx_unsupported", `sparse initializer in graph "${graph.name}"`);
  }
  const visible = [...scopes, checkDefinitions(graph, depth, walk)];
  const constants = storedTensors(graph);
  for (const node of graph.node) checkNode(node, constants, visible, walk);
  if (graph.output.length === 0) throw refuse("onnx_malformed", `graph "${graph.name}" has no output`);
  for (const output of graph.output) {
    if (!visible.some((names) => names.has(output.name))) {
      throw refuse("onnx_malformed", `graph output "${output.name}" is written by no node`);
    }
  }
}

/** Checks every name that the graph defines, and returns them. */
function checkDefinitions(graph: GraphProto, depth: number, walk: Walk): ReadonlySet<string> {
  const inputs = new Set<string>();
  for (const input of graph.input) {
    checkName(input.name, "graph input");
    checkShape(input, walk);
    if (inputs.has(input.name)) throw refuse("onnx_malformed", `graph input "${input.name}" occurs twice`);
    inputs.add(input.name);
  }
  for (const info of [...graph.output, ...graph.valueInfo]) checkShape(info, walk);
  const written = new Set<string>();
  for (const tensor of graph.initializer) {
    checkName(tensor.name, "initializer");
    checkTensor(tensor, `initializer "${tensor.name}"`, walk.limits.tensorElementsMax);
    // In the main graph this only makes the weight replaceable; in a body ONNX Runtime up to 1.30.0 reads out of bounds.
    if (depth > 0 && inputs.has(tensor.name)) {
      throw refuse(
        "onnx_malformed",
        `"${tensor.name}" is both input and initializer of graph "${graph.name}"`,
      );
    }
    if (written.has(tensor.name)) throw refuse("onnx_malformed", `initializer "${tensor.name}" occurs twice`);
    written.add(tensor.name);
  }
  for (const node of graph.node) {
    for (const name of node.output) {
      if (name === "") continue;
      checkName(name, `output of ${nodeLabel(node)}`);
      if (written.has(name) || inputs.has(name)) {
        throw refuse("onnx_malformed", `${nodeLabel(node)} writes "${name}", which is written already`);
      }
      written.add(name);
    }
  }
  return new Set([...inputs, ...written]);
}

function checkNode(
  node: NodeProto,
  constants: ReadonlyMap<string, TensorProto>,
  visible: readonly ReadonlySet<string>[],
  walk: Walk,
): void {
  const label = nodeLabel(node);
  checkName(node.opType, "operator type");
  checkName(node.name, "node name", true);
  const isLocal = walk.functions.nodeCounts.has(functionKey(node.domain, node.opType));
  if (!isLocal && !ALLOWED_DOMAINS.has(node.domain)) {
    throw refuse(
      "onnx_unknown_domain",
      `${label} is from domain "${node.domain}", known are ai.onnx, ai.onnx.ml, com.microsoft and functions that the file defines`,
    );
  }
  if (REFUSED_OPERATORS.has(node.opType)) {
    throw refuse("onnx_unsupported", `${label} may open other files`);
  }
  for (const name of node.input) {
    if (name !== "" && !visible.some((names) => names.has(name))) {
      throw refuse("onnx_malformed", `${label} reads "${name}", which nothing writes`);
    }
  }
  checkAttributes(node.attribute, label, walk);
  checkClaimedShape(node, constants, label, walk);
  const bodies = subgraphsOf(node);
  if (bodies.length === 0 && !CONTROL_FLOW.has(node.opType)) return;
  walk.hasControlFlow = true;
  if (!walk.limits.allowControlFlow) {
    throw refuse("onnx_unsupported", `${label} is control flow, which this model may not use`);
  }
  for (const body of bodies) checkGraph(body, visible, walk);
}

function checkAttributes(attributes: NodeProto["attribute"], label: string, walk: Walk): void {
  const names = new Set<string>();
  for (const entry of attributes) {
    checkName(entry.name, `attribute of ${label}`);
    if (names.has(entry.name)) throw refuse("onnx_malformed", `${label} has attribute "${entry.name}" twice`);
    names.add(entry.name);
    if (entry.refAttrName !== "" && !walk.insideFunction) {
      throw refuse("onnx_malformed", `${label} refers to attribute "${entry.refAttrName}" of a function`);
    }
    if (entry.sparseTensor || entry.sparseTensors.length > 0) {
      throw refuse("onnx_unsupported", `sparse tensor in ${label}`);
    }
    for (const tensor of entry.t ? [entry.t, ...entry.tensors] : entry.tensors) {
      checkTensor(tensor, `attribute "${entry.name}" of ${label}`, walk.limits.tensorElementsMax);
    }
  }
}

/** Operators that make a tensor of a written-down size out of nothing. */
function checkClaimedShape(
  node: NodeProto,
  constants: ReadonlyMap<string, TensorProto>,
  label: string,
  walk: Walk,
): void {
  let dims: number[] | undefined;
  if (node.opType === "ConstantOfShape" || node.opType === "Expand") {
    const shape = constants.get(node.input[node.opType === "Expand" ? 1 : 0] ?? "");
    if (shape) dims = tensorToInt64Numbers(shape);
  } else if (node.opType === "RandomNormal" || node.opType === "RandomUniform") {
    dims = intsAttribute(node, "shape");
  }
  if (dims) checkElements(dims, label, walk);
}

function checkShape(info: ValueInfoProto, walk: Walk): void {
  const value = info.type?.value;
  if (value?.case !== "tensorType") return;
  const dims: number[] = [];
  for (const dim of value.value.shape?.dim ?? []) {
    if (dim.value.case === "dimValue") dims.push(Number(dim.value.value));
    else if (dim.value.case === "dimParam") checkName(dim.value.value, `dimension of "${info.name}"`, true);
  }
  checkElements(
    // Old exporters write 0 or -1 for "any".
    dims.filter((dim) => dim > 0),
    `value "${info.name}"`,
    walk,
  );
}

function checkElements(dims: readonly number[], label: string, walk: Walk): void {
  const elements = dims.reduce((product, dim) => product * dim, 1);
  if (elements <= walk.limits.tensorElementsMax) return;
  throw refuse(
    "onnx_too_large",
    `${label} claims ${elements} elements, at most ${walk.limits.tensorElementsMax} allowed`,
  );
}

function checkName(name: string, what: string, mayBeEmpty = false): void {
  if (name === "" && !mayBeEmpty) throw refuse("onnx_malformed", `${what}: the name is empty`);
  if (name.length > ONNX_LIMITS.nameLengthMax) {
    throw refuse(
      "onnx_malformed",
      `${what}: a name of ${name.length} characters, at most ${ONNX_LIMITS.nameLengthMax} allowed`,
    );
  }
  for (let index = 0; index < name.length; index++) {
    const code = name.charCodeAt(index);
    if (code < 0x20 || code === 0x7f || code === 0xfffd) {
      throw refuse("onnx_malformed", `${what}: ${JSON.stringify(name)} holds a character that is not text`);
    }
  }
}

function refuse(code: ErrorCode, what: string): FieldloopError {
  return new FieldloopError(code, `Check ONNX: ${what}`);
}
