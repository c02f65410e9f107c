import type { Manifest } from "@fieldloop/protocol";
import type { Baseline, Session } from "@fieldloop/runtime";
import {
  compareOnSlice,
  judgeEvaluation,
  type EvaluationSlice,
  type JudgedInput,
} from "../domain/evaluation.js";
import { FramePredictor } from "./describe.js";
import type { EvaluationBody } from "./job.js";
import type { Labelled } from "./rows.js";

/** A version as devices run it. */
export interface Contender {
  readonly manifest: Manifest;
  readonly variant: string;
  readonly session: Session;
  readonly baseline?: Baseline;
}

export interface CompareOptions {
  readonly labels: readonly string[];
  readonly base: Contender;
  readonly candidate: Contender;
  /** Labelled samples that neither was trained on. */
  readonly field: readonly Labelled[];
  /** The holdout that travels with the base version. */
  readonly old: readonly Labelled[];
  readonly onProgress: (done: number, of: number) => void;
}

/** Both versions on the same inputs, through the same steps as on a device: decode, prepare, run, head. */
export async function compareVersions(options: CompareOptions): Promise<EvaluationBody> {
  const { base, candidate, labels } = options;
  const slices: EvaluationSlice[] = [];
  const total = options.field.length + options.old.length;
  let done = 0;
  for (const [slice, items] of [
    ["field", options.field],
    ["old", options.old],
  ] as const) {
    if (items.length === 0) continue;
    const predictBase = predictLabel(base, labels);
    const predictCandidate = predictLabel(candidate, labels);
    const inputs: JudgedInput[] = [];
    for (const item of items) {
      const truth = labels.indexOf(item.label);
      const said = await predictBase(item);
      if (truth >= 0 && said !== undefined)
        inputs.push({ truth, base: said, candidate: (await predictCandidate(item)) ?? -1 });
      options.onProgress(++done, total);
    }
    slices.push(compareOnSlice(slice, labels, inputs, under(base), under(candidate)));
  }
  return {
    model: base.manifest.model,
    labels: [...labels],
    base: base.manifest.version,
    candidate: candidate.manifest.version,
    slices,
    ...judgeEvaluation(slices),
  };
}

function under({ manifest, variant }: Contender): { version: number; variant: string } {
  return { version: manifest.version, variant };
}

/** Index of the predicted label among `labels`, -1 for another; undefined for an input that cannot be decoded. */
function predictLabel(
  contender: Contender,
  labels: readonly string[],
): (item: Labelled) => Promise<number | undefined> {
  const predictor = new FramePredictor(contender.manifest, contender.session, contender.baseline);
  return async (item) => {
    const prediction = await predictor.predict(item);
    return prediction && labels.indexOf(prediction.label);
  };
}
