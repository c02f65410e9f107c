import { FieldloopError } from "@fieldloop/protocol";
import type { Backend } from "../backend.js";
import type { TrainingData, TrainingRows } from "./feed.js";
import { sizeOf, type TrainGraph } from "./graph.js";
import { runForward } from "./infer.js";
import type { ForwardGraph, PreparedGraph } from "./prepare.js";
import { TRAINING_LIMITS, type TrainingSettings } from "./settings.js";
import { dependents } from "./tape.js";

/** A network in two: what is frozen, and what is trained on its output. */
export interface Cut {
  readonly prefix: ForwardGraph;
  readonly suffix: PreparedGraph;
}

/** Cuts where the frozen part hands over, if that is one value with a row per input row. */
export function cutPrefix(prepared: PreparedGraph): Cut | undefined {
  const { graph, input, shapes, trained } = prepared;
  const fromInput = dependents(graph.nodes, [input.name]);
  const fromTrained = dependents(graph.nodes, trained);
  const isTrained = (node: TrainGraph["nodes"][number]) =>
    node.outputs.some((output) => fromTrained.has(output));
  const suffixNodes = graph.nodes.filter(isTrained);
  const border = new Set(
    suffixNodes.flatMap((node) =>
      node.inputs.filter((name) => fromInput.has(name) && !fromTrained.has(name)),
    ),
  );
  const [name] = border;
  const dims = name === undefined ? undefined : shapes.get(name);
  if (border.size !== 1 || name === undefined || name === input.name || dims?.[0] !== input.dims[0])
    return undefined;
  const prefixNodes = graph.nodes.filter((node) => !isTrained(node));
  return {
    prefix: { graph: { ...graph, outputs: [name], nodes: prefixNodes }, input, output: name },
    suffix: {
      ...prepared,
      graph: { ...graph, inputs: [{ name, type: "float32", dims: dims! }], nodes: suffixNodes },
      input: { name, type: "float32", dims: dims! },
    },
  };
}

export interface FeatureSource {
  readonly backend: Backend;
  readonly data: TrainingData;
  readonly replay?: TrainingData | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The same training problem with the frozen part already run. */
export interface Features {
  readonly prepared: PreparedGraph;
  readonly data: TrainingRows;
  readonly replay: TrainingRows | undefined;
}

/**
 * Runs the frozen part once over all rows where that is cheaper than running it in every step: rows in memory that are
 * visited at least once each, within {@link TRAINING_LIMITS}.featureBytesMax. Gives undefined otherwise.
 */
export async function precomputeFeatures(
  prepared: PreparedGraph,
  source: FeatureSource,
  settings: TrainingSettings,
): Promise<Features | undefined> {
  const { data, replay } = source;
  if (!isSupervised(data) || (replay !== undefined && !isSupervised(replay))) return undefined;
  const cut = cutPrefix(prepared);
  if (!cut) return undefined;
  const rowSize = sizeOf(prepared.input.dims.slice(1));
  const newRows = data.inputs.length / rowSize;
  const rows = newRows + (replay ? replay.inputs.length / rowSize : 0);
  const visits = settings.steps === undefined ? settings.epochs * newRows : settings.steps * settings.batch;
  const bytes = rows * sizeOf(cut.suffix.input.dims.slice(1)) * 4;
  if (!Number.isInteger(rows) || visits < rows || bytes > TRAINING_LIMITS.featureBytesMax) return undefined;
  const run = async (given: TrainingRows): Promise<TrainingRows> => {
    if (source.signal?.aborted)
      throw new FieldloopError("cancelled", "Train: cancelled before the first step");
    const { outputs } = await runForward(cut.prefix, given.inputs, source.backend, settings);
    return { ...given, inputs: outputs };
  };
  return { prepared: cut.suffix, data: await run(data), replay: replay && (await run(replay)) };
}

/** Rows in memory whose target is not the row itself. */
function isSupervised(data: TrainingData): data is TrainingRows {
  return "inputs" in data && (data.labels !== undefined || data.targets !== undefined);
}
