import { dirname } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { checkModel, type ModelFacts } from "../onnx/check.js";
import { fixDims } from "../onnx/dims.js";
import { foreignFile } from "../onnx/foreign.js";
import { valueInfo } from "../onnx/builder.js";
import type { GraphProto, ModelProto, ValueInfoProto } from "../onnx/generated/onnx_pb.js";
import { attribute, pruneDead } from "../onnx/graph.js";
import { graphSignature } from "../onnx/inspect.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { nameNodes } from "../onnx/names.js";
import { tidyModel } from "../onnx/tidy.js";
import { inlineFromFolder } from "./external-data.js";
import type { TrialProcess } from "./trial.js";

/** A file as a package takes it. */
export interface TidiedModel {
  readonly bytes: Uint8Array;
  readonly facts: ModelFacts;
}

/**
 * Makes of any ONNX file one that a package can hold: external data brought in from the file's own folder, dimensions
 * fixed, repeated inputs dropped, nodes named, outputs that cannot be returned left out with a warning. What it computes
 * for the outputs that stay does not change.
 * @throws FieldloopError `onnx_*` naming the node or tensor
 */
export async function tidyForPackage(
  original: Uint8Array,
  file: string,
  dims: Readonly<Record<string, number>>,
  warn: (text: string) => void,
): Promise<TidiedModel> {
  const foreign = foreignFile(original);
  if (foreign !== undefined) {
    throw new FieldloopError("onnx_malformed", `Import "${file}": the file is ${foreign}, wanted ONNX`);
  }
  const model = decodeModel(original);
  const inlined = await inlineFromFolder(model, dirname(file));
  if (inlined > 0) warn(`${inlined} tensors with their data in other files were brought into the model`);
  else checkModel(original);
  tidyModel(model);
  if (Object.keys(dims).length > 0) fixDims(model, dims);
  dropForeignOutputs(model, warn);
  nameNodes(model);
  const bytes = encodeModel(model);
  const facts = checkModel(bytes);
  const unfed = facts.unfedInputs[0];
  if (unfed !== undefined) {
    throw new FieldloopError(
      "onnx_unsupported",
      `Import "${file}": input "${unfed.name}" takes a value of type ${unfed.kind}, wanted tensors; nothing can feed it`,
    );
  }
  return { bytes, facts };
}

/**
 * Leaves out outputs that are sequences, maps, optionals or 4-bit, and the nodes that only they need. Of a map that a ZipMap makes
 * (classifiers of ai.onnx.ml as exporters write them) the tensor of probabilities behind it becomes the output.
 */
function dropForeignOutputs(model: ModelProto, warn: (text: string) => void): void {
  const graph = graphOf(model);
  const { omittedOutputs, outputs } = graphSignature(graph);
  if (omittedOutputs.length === 0) return;
  const unzipped = new Map<string, string>();
  for (const { name } of omittedOutputs) {
    const zipped = zippedTensor(graph, name);
    if (zipped === undefined) continue;
    unzipped.set(name, zipped.name);
    if (graph.output.every((output) => output.name !== zipped.name)) graph.output.push(zipped);
  }
  if (outputs.length === 0 && unzipped.size === 0) {
    const [first] = omittedOutputs;
    throw new FieldloopError(
      "onnx_unsupported",
      `Import model: its only output "${first!.name}" is of type ${first!.kind}, wanted at least one tensor`,
    );
  }
  const names = new Set(omittedOutputs.map(({ name }) => name));
  graph.output = graph.output.filter((output) => !names.has(output.name));
  pruneDead(graph);
  tidyModel(model);
  for (const { name, kind } of omittedOutputs) {
    const tensor = unzipped.get(name);
    const instead = tensor === undefined ? "" : `; output "${tensor}" has the numbers of it`;
    warn(`output "${name}" is left out: it is of type ${kind}, and results hold tensors only${instead}`);
  }
}

/** What a ZipMap puts names to: float32 [N, classes] (ONNX-ML, ZipMap). */
function zippedTensor(graph: GraphProto, output: string): ValueInfoProto | undefined {
  const node = graph.node.find((candidate) => candidate.output.includes(output));
  const name = node?.input[0];
  if (node?.opType !== "ZipMap" || node.domain !== "ai.onnx.ml" || name === undefined) return undefined;
  const { ints = [] } = attribute(node, "classlabels_int64s") ?? {};
  const { strings = [] } = attribute(node, "classlabels_strings") ?? {};
  return valueInfo(name, "float32", ["N", Math.max(ints.length, strings.length)]);
}

/** A fold is worth another file than the exporter wrote when it takes away this share of the nodes. */
const FOLD_GAIN_MIN = 0.1;
const FOLDED_SIZE_MAX = 1.2;

/**
 * The model with constant parts computed and normalizations merged into the layers before them, where that takes a tenth
 * of its nodes away and leaves the signature as it is; the model as it came otherwise. Less to load and to optimize at
 * each start, and what a quantizer wants to see.
 */
export async function foldWhereItHelps(model: TidiedModel, trial: TrialProcess): Promise<TidiedModel> {
  if (model.facts.hasControlFlow) return model;
  let folded: TidiedModel;
  try {
    const decoded = decodeModel(await trial.fold(model.bytes, "basic"));
    tidyModel(decoded);
    nameNodes(decoded);
    const bytes = encodeModel(decoded);
    folded = { bytes, facts: checkModel(bytes) };
  } catch (error) {
    // What does not fold stays as it is; what does not open is reported by the trial run, with its reason.
    if (error instanceof FieldloopError) return model;
    throw error;
  }
  const isSmaller = folded.facts.nodeCount <= model.facts.nodeCount * (1 - FOLD_GAIN_MIN);
  const isLight = folded.bytes.length <= model.bytes.length * FOLDED_SIZE_MAX;
  const isPortable = Object.keys(folded.facts.opsets).every((domain) => domain in model.facts.opsets);
  return isSmaller && isLight && isPortable && sameSignature(model.facts, folded.facts)
    ? {
        bytes: folded.bytes,
        facts: { ...folded.facts, inputs: model.facts.inputs, outputs: model.facts.outputs },
      }
    : model;
}

function sameSignature(a: ModelFacts, b: ModelFacts): boolean {
  const text = ({ inputs, outputs }: ModelFacts) =>
    [...inputs, ...outputs].map((info) => `${info.name} ${info.type}`).join("\n");
  return text(a) === text(b);
}
