import { FieldloopError } from "@fieldloop/protocol";
import type { GraphProto, ModelProto, NodeProto } from "./generated/onnx_pb.js";
import {
  attribute,
  consumerMap,
  floatAttribute,
  intAttribute,
  intsAttribute,
  makeAttribute,
  makeNode,
  namesWithin,
  sortedNodes,
  stringAttribute,
  subgraphsOf,
  storedTensors,
} from "./graph.js";
import { graphOf, opsetVersion } from "./model.js";
import { float32Tensor, tensorToFloat32 } from "./tensor.js";
import { upgradeAffine, upgradeCrop, upgradeImageScaler } from "./upgrade-legacy.js";
import {
  addConstant,
  addFloat,
  addTensor,
  dropAttributes,
  trimInputs,
  uniqueName,
  unsupported,
  type Adapter,
  type Upgrade,
} from "./upgrade-tools.js";

/** Oldest operator set that can be upgraded: 7 (2018) brought today's broadcasting. */
export const UPGRADE_OPSET_MIN = 7;
/** What quantization needs: per-axis QuantizeLinear and DequantizeLinear came with 13. */
export const UPGRADE_OPSET_TARGET = 13;
/** Newest operator set that the upgrade can reach. */
export const UPGRADE_OPSET_MAX = 21;

/** Operators whose version 7..13 definitions mean the same for every model that was legal (onnx/docs/Changelog.md). */
const UNCHANGED = new Set(
  `Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool Cast Ceil Concat Constant ConstantOfShape Conv ConvTranspose Cos
  CumSum DepthToSpace DequantizeLinear Div Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
  GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity
  InstanceNormalization IsInf IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log LpNormalization LpPool MatMul Max MaxPool
  MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pow
  QLinearConv QLinearMatMul QuantizeLinear RNN Range Reciprocal 
  Relu Reshape ReverseSequence Round ScatterElements
  ScatterND Selu Shape Shrink Sigmoid Sign Sin Size Softplus Softsign SpaceToDepth Sqrt Sub Sum Tan Tanh
  ThresholdedRelu Tile Transpose Where Xor Sinh Cosh Asinh Acosh Atanh BitShift Celu Compress ConcatFromSequence
  ConvInteger Det DynamicQuantizeLinear Einsum If Loop MatMulInteger MaxRoiPool Multinomial RandomNormal
  RandomNormalLike RandomUniform RandomUniformLike SequenceAt SequenceConstruct SequenceEmpty SequenceErase
  SequenceInsert SequenceLength SplitToSequence StringNormalizer TfIdfVectorizer Unique`.split(/\s+/),
);

/** Operators that changed their meaning after 13, with the set that changed them; nothing here writes the old one anew. */
const CHANGED_LATER: Readonly<Record<string, number>> = { DFT: 20, GroupNormalization: 21 };

/** IR version with which an operator set was released (onnx/docs/Versioning.md). */
const IR_VERSIONS: readonly (readonly [opset: number, irVersion: bigint])[] = [
  [21, 10n],
  [19, 9n],
  [15, 8n],
  [13, 7n],
];

/** Each returns what the node becomes; the last node of the list keeps the name and outputs of the original. */
const ADAPTERS: Readonly<Record<string, Adapter>> = {
  Affine: upgradeAffine,
  BatchNormalization: upgradeBatchNormalization,
  Clip: upgradeClip,
  Crop: upgradeCrop,
  Dropout: upgradeDropout,
  GridSample: upgradeGridSample,
  Hardmax: upgradeSoftmax,
  ImageScaler: upgradeImageScaler,
  LogSoftmax: upgradeSoftmax,
  Pad: upgradePad,
  ReduceL1: upgradeReduction,
  ReduceL2: upgradeReduction,
  ReduceLogSum: upgradeReduction,
  ReduceLogSumExp: upgradeReduction,
  ReduceMax: upgradeReduction,
  ReduceMean: upgradeReduction,
  ReduceMin: upgradeReduction,
  ReduceProd: upgradeReduction,
  ReduceSumSquare: upgradeReduction,
  ReduceSum: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["axes"]),
  Resize: upgradeResize,
  RoiAlign: upgradeRoiAlign,
  Scan: upgradeScan,
  Scatter: upgradeScatter,
  Slice: (node, upgrade) => attributesToInputs(node, upgrade, 10, ["starts", "ends", "axes"]),
  Softmax: upgradeSoftmax,
  Split: upgradeSplit,
  Squeeze: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["axes"]),
  TopK: upgradeTopK,
  Unsqueeze: (node, upgrade) => attributesToInputs(node, upgrade, 13, ["axes"]),
  Upsample: upgradeResize,
};

/**
 * Brings a model of operator set 7 or later up to `target` (13 to 21), in place, bodies of If, Loop and Scan included; a
 * model that is there already stays as it is. Operators of the first sets that only some engines still know (ImageScaler,
 * Affine, Crop) are written as standard ones. Returns whether anything changed.
 * @throws FieldloopError `onnx_unsupported`, naming the operator, for what it does not know; `invalid_argument` for another target
 */
export function upgradeOpset(model: ModelProto, target: number = UPGRADE_OPSET_TARGET): boolean {
  if (target < UPGRADE_OPSET_TARGET || target > UPGRADE_OPSET_MAX) {
    throw new FieldloopError(
      "invalid_argument",
      `Upgrade ONNX to operator set ${target}: wanted ${UPGRADE_OPSET_TARGET} to ${UPGRADE_OPSET_MAX}`,
    );
  }
  const from = opsetVersion(model);
  if (from >= target) return false;
  if (from < UPGRADE_OPSET_MIN) {
    throw unsupported(target, `operator set ${from} is older than ${UPGRADE_OPSET_MIN}`);
  }
  if (model.functions.length > 0) throw unsupported(target, "the file defines functions of its own");
  upgradeBody(graphOf(model), { from, to: target, taken: namesWithin(graphOf(model)) });
  for (const entry of model.opsetImport) {
    if (entry.domain === "" || entry.domain === "ai.onnx") entry.version = BigInt(target);
  }
  const irVersion = IR_VERSIONS.find(([opset]) => opset <= target)![1];
  if (model.irVersion < irVersion) model.irVersion = irVersion;
  return true;
}

function upgradeBody(graph: GraphProto, upgrade: Pick<Upgrade, "from" | "to" | "taken">): void {
  const inner: Upgrade = {
    ...upgrade,
    graph,
    readNames: new Set([...consumerMap(graph).keys(), ...graph.output.map((output) => output.name)]),
  };
  graph.node = sortedNodes(graph).flatMap((node) => {
    for (const body of subgraphsOf(node)) upgradeBody(body, upgrade);
    return upgradeNode(node, inner);
  });
}

function upgradeNode(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (node.domain !== "" && node.domain !== "ai.onnx") return [node];
  const changed = CHANGED_LATER[node.opType];
  if (changed !== undefined && upgrade.from < changed && upgrade.to >= changed) {
    throw unsupported(
      upgrade.to,
      `operator ${node.opType} (node "${node.name}") changed its meaning in ${changed}`,
    );
  }
  const adapter = ADAPTERS[node.opType];
  if (adapter) return adapter(node, upgrade);
  if (UNCHANGED.has(node.opType) || upgrade.from >= UPGRADE_OPSET_TARGET) return [node];
  throw unsupported(
    upgrade.to,
    `operator ${node.opType} (node "${node.name}") of operator set ${upgrade.from}`,
  );
}

/** Turns integer list attributes into int64 inputs, which is how `since` defines them; absent ones stay absent. */
function attributesToInputs(
  node: NodeProto,
  upgrade: Upgrade,
  since: number,
  names: readonly string[],
): NodeProto[] {
  if (upgrade.from >= since || upgrade.to < since) return [node];
  for (const name of names) {
    const values = intsAttribute(node, name);
    node.input.push(values ? addConstant(upgrade, node, name, values) : "");
  }
  dropAttributes(node, names);
  trimInputs(node);
  return [node];
}

function upgradeBatchNormalization(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  // From 14 on the training form is an attribute of its own.
  if (upgrade.from >= 14) return [node];
  if (intAttribute(node, "spatial", 1) === 0) {
    throw unsupported(upgrade.to, `BatchNormalization with spatial=0 (node "${node.name}")`);
  }
  if (node.output.filter((name) => name !== "").length > 1) {
    throw unsupported(upgrade.to, `BatchNormalization in training form (node "${node.name}")`);
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
    throw unsupported(upgrade.to, `Dropout whose mask is used (node "${node.name}")`);
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

/**
 * Upsample and the first Resize sample without centring: "asymmetric" (Changelog, Resize-11). The nearest element is the one below where an
 * axis grows, the one above where it shrinks (the expected output of ONNX's `resize_downsample_scales_nearest` of operator set 10, and ONNX
 * Runtime); scales that the graph computes are taken to enlarge.
 */
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
  const factors = storedFloats(upgrade.graph, scales);
  const shrinks = factors.some((factor) => factor < 1);
  if (mode === "nearest" && shrinks && factors.some((factor) => factor > 1)) {
    throw unsupported(
      upgrade.to,
      `Resize that shrinks one axis and enlarges another by the nearest element (node "${node.name}")`,
    );
  }
  return [
    makeNode(
      "Resize",
      [node.input[0]!, "", scales],
      node.output,
      {
        mode: { s: mode === "bilinear" ? "linear" : mode },
        coordinate_transformation_mode: { s: "asymmetric" },
        nearest_mode: { s: shrinks ? "ceil" : "floor" },
      },
      { name: node.name },
    ),
  ];
}

/** Values of an initializer or a Constant node; none where the graph computes them. */
function storedFloats(graph: GraphProto, name: string): number[] {
  const tensor = storedTensors(graph).get(name);
  return tensor === undefined ? [] : [...tensorToFloat32(tensor)];
}

/**
 * Before 13, Softmax worked on the input flattened to two dimensions at `axis` (default 1). That is the same as the
 * new one on the last axis when `axis` is the last; elsewhere the flattening is written out.
 */
function upgradeSoftmax(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 13) return [node];
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

function upgradeReduction(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  return attributesToInputs(node, upgrade, 18, ["axes"]);
}

/** From 18 on, equal parts are asked for by their number. */
function upgradeSplit(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  const [split] = attributesToInputs(node, upgrade, 13, ["split"]);
  if (upgrade.from < 18 && upgrade.to >= 18 && (split!.input[1] ?? "") === "") {
    split!.attribute.push(makeAttribute("num_outputs", { i: split!.output.length }));
  }
  return [split!];
}

/** 16 put samples at pixel centres by default; before they were at corners. */
function upgradeRoiAlign(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from < 16 && upgrade.to >= 16) {
    node.attribute.push(makeAttribute("coordinate_transformation_mode", { s: "output_half_pixel" }));
  }
  return [node];
}

const GRID_MODES: Readonly<Record<string, string>> = { bilinear: "linear", bicubic: "cubic" };

/** 20 renamed the modes. */
function upgradeGridSample(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from >= 20 || upgrade.to < 20) return [node];
  const mode = stringAttribute(node, "mode", "bilinear");
  dropAttributes(node, ["mode"]);
  node.attribute.push(makeAttribute("mode", { s: GRID_MODES[mode] ?? mode }));
  return [node];
}

function upgradeScan(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from < 9) throw unsupported(upgrade.to, `Scan with a batch (node "${node.name}")`);
  return [node];
}

/** Deprecated by 11, which says the same under another name. */
function upgradeScatter(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  if (upgrade.from < 11) node.opType = "ScatterElements";
  return [node];
}

function rankOf(graph: GraphProto, name: string): number | undefined {
  const info = [...graph.valueInfo, ...graph.input, ...graph.output].find((entry) => entry.name === name);
  const value = info?.type?.value;
  return value?.case === "tensorType" ? value.value.shape?.dim.length : undefined;
}
