import { FieldloopError } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { valueInfo } from "../onnx/builder.js";
import { checkModel } from "../onnx/check.js";
import type { ValueInfoProto } from "../onnx/generated/onnx_pb.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { describeModel } from "../presets/boundary.js";
import type { ModelSignature } from "../presets/preset.js";
import { tidyForPackage, type TidiedModel } from "./import-model.js";
import { feedsFor } from "./infer.js";
import { readModelFile } from "./read-model-file.js";
import { withTrial, type TrialOptions, type TrialProcess } from "./trial.js";
import type { TrialResult } from "./trial-messages.js";

export interface DescribedFile {
  readonly signature: ModelSignature;
  /** As a package would hold it. */
  readonly bytes: Uint8Array;
}

/**
 * What a file is, as a preset is to see it, by the same steps as its import; a process of its own runs it only where outputs have no shape.
 * @throws FieldloopError `not_found`, `onnx_*`, and what opening it throws
 */
export async function describeFile(
  file: string,
  dims: Readonly<Record<string, number>> = {},
  trial: Pick<TrialOptions, "timeoutMs" | "rssBytesMax"> = {},
): Promise<DescribedFile> {
  const tidied = await tidyForPackage(await readModelFile(file), file, dims, () => undefined);
  const { bytes, facts } = await completeShapes(tidied, dims, (work) => withTrial(trial, work));
  return { signature: { ...describeModel(decodeModel(bytes)), ...facts }, bytes };
}

/**
 * Exporters may leave an output without type or shape, which reads like a scalar. The engine infers it; what it leaves open, one run tells.
 * @throws FieldloopError what opening the model throws
 */
export async function completeShapes(
  model: TidiedModel,
  dims: Readonly<Record<string, number>>,
  withTrialProcess: (work: (trial: TrialProcess) => Promise<TrialResult>) => Promise<TrialResult>,
): Promise<TidiedModel> {
  const decoded = decodeModel(model.bytes);
  const graph = graphOf(decoded);
  if (!graph.output.some(lacksShape)) return model;
  const seen = await withTrialProcess((trial) => openOrRun(trial, model, dims));
  const inferred = new Map(seen.outputs.map((info) => [info.name, info]));
  graph.output = graph.output.map((output) => {
    const info = inferred.get(output.name);
    if (info === undefined || !lacksShape(output) || seen.omitted.includes(info.name)) return output;
    const found = shapeOf(info, seen.summaries[info.name]?.dims, model.facts.inputs);
    return found === undefined ? output : valueInfo(info.name, info.type, found);
  });
  const bytes = encodeModel(decoded);
  return { bytes, facts: checkModel(bytes) };
}

function lacksShape(output: ValueInfoProto): boolean {
  const value = output.type?.value;
  if (value === undefined || value.case === undefined) return true;
  return value.case === "tensorType" && value.value.shape === undefined;
}

/** A run with sizes of 1 for open dimensions may fail where one with the preset's sizes does not: then the engine's inference has to do. */
async function openOrRun(
  trial: TrialProcess,
  { bytes, facts }: TidiedModel,
  dims: Readonly<Record<string, number>>,
): Promise<TrialResult> {
  try {
    return await trial.run(bytes, { feeds: feedsFor(facts.inputs, dims), values: false });
  } catch (error) {
    if (!(error instanceof FieldloopError) || error.code !== "model_run_failed") throw error;
    return trial.run(bytes);
  }
}

/** Sizes by the engine's inference, else by a run, whose batch of 1 stays open where that of the inputs is. */
function shapeOf(
  info: TensorInfo,
  ran: readonly number[] | undefined,
  inputs: readonly TensorInfo[],
): (number | string)[] | undefined {
  const open = (size: number | string): number | string => (typeof size === "number" && size < 0 ? "" : size);
  if (info.dims.length > 0) return info.dims.map(open);
  if (ran === undefined) return undefined;
  const batch = inputs[0]?.dims[0];
  const isOpen = typeof batch === "string" || (batch !== undefined && batch < 0);
  return ran.map((size, at) => (at === 0 && size === 1 && isOpen ? "" : size));
}
