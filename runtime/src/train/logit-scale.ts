import type { Backend } from "../backend.js";
import type { TrainingData, TrainingRows } from "./feed.js";
import { sizeOf } from "./graph.js";
import { runForward } from "./infer.js";
import { loadForward } from "./prepare.js";
import { TRAINING_LIMITS, type TrainingSettings } from "./settings.js";
import { fitTemperature, logitSpread } from "./temperature.js";

/** Logits that spread wider than this saturate the loss from the first step. */
const WIDE_SPREAD = 10;

/**
 * Factor on the logits inside the loss. A file may have logits in the hundreds (mnist-8 starts at loss 67): trained as
 * it is, such a model loses most of what it knew. The factor is 1/T with T fitted on old data, or on the new where
 * there is no old.
 */
export async function resolveLogitScale(
  source: {
    readonly model: Uint8Array;
    readonly backend: Backend;
    readonly data: TrainingData;
    readonly replay?: TrainingData;
  },
  settings: TrainingSettings,
): Promise<number> {
  if (settings.logitScale !== "auto") return settings.logitScale;
  if (settings.loss !== "cross_entropy") return 1;
  const rows = [source.replay, source.data].find(hasLabels);
  if (!rows) return 1;
  const count = Math.min(rows.labels!.length, TRAINING_LIMITS.logitScaleRowsMax);
  if (count === 0) return 1;
  const forward = loadForward(source.model, {
    batch: settings.batch,
    output: settings.output,
    strip: "softmax",
  });
  const rowSize = sizeOf(forward.input.dims.slice(1));
  const { outputs, size } = await runForward(
    forward,
    rows.inputs.subarray(0, count * rowSize),
    source.backend,
    settings,
  );
  if (logitSpread(outputs, size) < WIDE_SPREAD) return 1;
  return 1 / fitTemperature(outputs, Array.prototype.slice.call(rows.labels, 0, count) as number[]);
}

function hasLabels(data: TrainingData | undefined): data is TrainingRows {
  return data !== undefined && "labels" in data && data.labels !== undefined;
}
