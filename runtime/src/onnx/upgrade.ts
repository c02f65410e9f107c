import { FieldloopError } from "@fieldloop/protocol";
import type { GraphProto, ModelProto, NodeProto } from "./generated/onnx_pb.js";
import {
  attribute,
  consumerMap,
  definedNames,
  floatAttribute,
  intAttribute,
  intsAttribute,
  makeAttribute,
  makeNode,
  sortedNodes,
  stringAttribute,
  subgraphsOf,
} from "./graph.js";
import { graphOf, opsetVersion } from "./model.js";
import { float32Tensor, int64Tensor } from "./tensor.js";

/** Oldest operator set that can be upgraded: 7 (2018) brought today's broadcasting. */
export const UPGRADE_OPSET_MIN = 7;
/** What quantization needs: per-axis QuantizeLinear and DequantizeLinear came with 13. */
export const UPGRADE_OPSET_TARGET = 13;

/** Operators whose version 7..13 definitions mean the same for every model that was legal (onnx/docs/Changelog.md). */
const UNCHANGED = new Set(
  `Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool Cast Ceil Concat Constant ConstantOfShape Conv ConvTranspose Cos
  CumSum DepthToSpace DequantizeLinear Div Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
  GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity
  InstanceNormalization IsInf IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log LpNormalization LpPool MatMul Max MaxPool
  MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pow
  QLinearConv QLinearMatMul QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
  ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu Reshape ReverseSequence Round ScatterElements
  ScatterND Selu Shape Shrink Sigmoid Sign Sin Size Softplus Softsign SpaceToDepth Sqrt Sub Sum Tan Tanh
  ThresholdedRelu Tile Transpose Where Xor Sinh Cosh Asinh Acosh Atanh`.split(/\s+/),
);

interface Upgrade {
  readonly graph: GraphProto;
  readonly from: number;
  readonly taken: Set<string>;
  readonly readNames: ReadonlySet<string>;
}

type Adapter = (node: NodeProto, upgrade: Upgrade) => NodeProto[];

/** Each returns what the node becomes; the last node of the list keeps the name and outputs of the original. */
const ADAPTERS: Readonly<Record<string, Adapter>> = {
  BatchNormalization: upgradeBatchNormalization,
  Clip: upgradeClip,
  Dropout: upgradeDropout,
  Hardmax: upgradeSoftmax,
  LogSoftmax: upgradeSoftmax,
  Pad: upgradePad,
  ReduceSum: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["axes"]),
  Resize: upgradeResize,
  Slice: (node, upgrade) => attributesToInputs(node, upgrade, 10, ["starts", "ends", "axes"]),
  Softmax: upgradeSoftmax,
  Split: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["split"]),
  Squeeze: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["axes"]),
  TopK: upgradeTopK,
  Unsqueeze: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["axes"]),
  Upsample: upgradeResize,
};

/**
 * Brings a model of operator set 7 to 12 up to 13, in place; a model that is there already stays as it is. Returns
 * whether anything changed. Throws `onnx_unsupported`, naming the operator, for what it does not know.
 */
export function upgradeOpset(model: ModelProto): boolean {
  const from = opsetVersion(model);
  if (from >= UPGRADE_OPSET_TARGET) return false;
  if (from < UPGRADE_OPSET_MIN) {
    throw unsupported(`operator set ${from} is older than ${UPGRADE_OPSET_MIN}`);
  }
  const graph = graphOf(model);
  const upgrade: Upgrade = {
    graph,
    from,
    taken: definedNames(graph),
    readNames: new Set([...consumerMap(graph).keys(), ...graph.output.map((output) => output.name)]),
  };
  graph.node = sortedNodes(graph).flatMap((node) => upgradeNode(node, upgrade));
  for (const entry of model.opsetImport) {
    if (entry.domain === "" || entry.domain === "ai.onnx") entry.version = BigInt(UPGRADE_OPSET_TARGET);
  }
  // Operator set 13 was released with IR version 7 (onnx/docs/Versioning.md).
  if (model.irVersion < 7n) model.irVersion = 7n;
  return true;
}

function upgradeNode(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (node.domain !== "" && node.domain !== "ai.onnx") return [node];
  if (subgraphsOf(node).length > 0) {
    throw unsupported(`${node.opType} holds a graph (node "${node.name}")`);
  }
  const adapter = ADAPTERS[node.opType];
  if (adapter) return adapter(node, upgrade);
  if (UNCHANGED.has(node.opType)) return [node];
  throw unsupported(`operator ${node.opType} (node "${node.name}") of operator set ${upgrade.from}`);
}

/** Turns integer list attributes into int64 inputs, which is how `since` defines them; absent ones stay absent. */
function attributesToInputs(
  node: NodeProto,
  upgrade: Upgrade,
  since: number,
  names: readonly string[],
): NodeProto[] {
  if (upgrade.from >= since) return [node];
  for (const name of names) {
    const values = intsAttribute(node, name);
    node.input.push(values ? addConstant(upgrade, node, name, values) : "");
  }
  dropAttributes(node, names);
  trimInputs(node);
  return [node];
}

function upgradeBatchNormalization(node: NodeProto): NodeProto[] {
  if (intAttribute(node, "spatial", 1) === 0) {
    throw unsupported(`BatchNormalization with spatial=0 (node "${node.name}")`);
  }
  if (node.output.filter((name) => name !== "").length > 1) {
    throw unsupported(`BatchNormalization in training form (node "${node.name}")`);
  }
  dropAttributes(node, ["spatial"]);
  return [node];
}

function upgradeClip(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 11) return [node];
  for (const name of ["min", "max"]) {
    const bound = attribute(node, name);
    node.input.push(bound ? addFloat(upgrade, node, name, bound.f) : "");
  }
  dropAttributes(node, ["min", "max"]);
  trimInputs(node);
  return [node];
}

/** At inference the ratio has no effect, so it is dropped; a mask of another type than before is refused. */
function upgradeDropout(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 12) return [node];
  if (upgrade.from < 10 && upgrade.readNames.has(node.output[1] ?? "")) {
    throw unsupported(`Dropout whose mask is used (node "${node.name}")`);
  }
  if (upgrade.from < 10) node.output.length = Math.min(node.output.length, 1);
  dropAttributes(node, ["ratio"]);
  return [node];
}

function upgradePad(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 11) return [node];
  const pads = intsAttribute(node, "pads") ?? [];
  node.input = [
    node.input[0]!,
    addConstant(upgrade, node, "pads", pads),
    addFloat(upgrade, node, "value", floatAttribute(node, "value", 0)),
  ];
  dropAttributes(node, ["pads", "value"]);
  return [node];
}

function upgradeTopK(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 10) return [node];
  node.input.push(addConstant(upgrade, node, "k", [intAttribute(node, "k", 1)]));
  dropAttributes(node, ["k"]);
  return [node];
}

/** Upsample and the first Resize sample without centring: "asymmetric", and "floor" for nearest (Changelog, Resize-11). */
function upgradeResize(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 11) return [node];
  const mode = stringAttribute(node, "mode", "nearest");
  const scales =
    node.opType === "Upsample" && upgrade.from < 9
      ? addTensor(upgrade, node, "scales", (name) => {
          const values = attribute(node, "scales")?.floats ?? [];
          return float32Tensor(name, [values.length], values);
        })
      : node.input[1]!;
  return [
    makeNode(
      "Resize",
      [node.input[0]!, "", scales],
      node.output,
      {
        mode: { s: mode === "bilinear" ? "linear" : mode },
        coordinate_transformation_mode: { s: "asymmetric" },
        nearest_mode: { s: "floor" },
      },
      { name: node.name },
    ),
  ];
}

/**
 * Before 13, Softmax worked on the input flattened to two dimensions at `axis` (default 1). That is the same as the
 * new one on the last axis when `axis` is the last; elsewhere the flattening is written out.
 */
function upgradeSoftmax(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  const axis = intAttribute(node, "axis", 1);
  dropAttributes(node, ["axis"]);
  node.attribute.push(makeAttribute("axis", { i: -1 }));
  const input = node.input[0]!;
  if (axis === -1 || axis + 1 === rankOf(upgrade.graph, input)) return [node];
  const name = (stem: string) => uniqueName(upgrade, `${node.output[0]!}/${stem}`);
  const shape = name("shape");
  const flat = name("flat");
  const result = name("result");
  const output = node.output[0]!;
  node.input = [flat];
  node.output = [result];
  return [
    makeNode("Shape", [input], [shape]),
    makeNode("Flatten", [input], [flat], { axis: { i: axis } }),
    node,
    makeNode("Reshape", [result, shape], [output]),
  ];
}

function rankOf(graph: GraphProto, name: string): number | undefined {
  const info = [...graph.valueInfo, ...graph.input, ...graph.output].find((entry) => entry.name === name);
  const value = info?.type?.value;
  return value?.case === "tensorType" ? value.value.shape?.dim.length : undefined;
}

function addConstant(upgrade: Upgrade, node: NodeProto, label: string, values: readonly number[]): string {
  return addTensor(upgrade, node, label, (name) => int64Tensor(name, [values.length], values));
}

function addFloat(upgrade: Upgrade, node: NodeProto, label: string, value: number): string {
  return addTensor(upgrade, node, label, (name) => float32Tensor(name, [], [value]));
}

function addTensor(
  upgrade: Upgrade,
  node: NodeProto,
  label: string,
  make: (name: string) => ReturnType<typeof float32Tensor>,
): string {
  const tensor = make(uniqueName(upgrade, `${node.output[0]!}/${label}`));
  upgrade.graph.initializer.push(tensor);
  return tensor.name;
}

function uniqueName(upgrade: Upgrade, stem: string): string {
  let name = stem;
  for (let count = 1; upgrade.taken.has(name); count++) name = `${stem}_${count}`;
  upgrade.taken.add(name);
  return name;
}

function dropAttributes(node: NodeProto, names: readonly string[]): void {
  node.attribute = node.attribute.filter((entry) => !names.includes(entry.name));
}

function trimInputs(node: NodeProto): void {
  while (node.input.length > 0 && node.input[node.input.length - 1] === "") node.input.pop();
}

function unsupported(what: string): FieldloopError {
  return new FieldloopError(
    "onnx_unsupported",
    `Upgrade ONNX to operator set ${UPGRADE_OPSET_TARGET}: ${what}`,
  );
}
