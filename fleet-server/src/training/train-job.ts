import { readFile, rename, writeFile } from "node:fs/promises";
import { FieldloopError, decidingHead, type Manifest } from "@fieldloop/protocol";
import type { ClassificationHead } from "@fieldloop/runtime";
import { openPackage, ortNode } from "@fieldloop/runtime/node";
import { fit } from "@fieldloop/runtime/train";
import { isValidationSample } from "../domain/split.js";
import { augmentationOf, makeAugment } from "./augment.js";
import { Candidate, type Material, type RunContext, type Trained } from "./candidate.js";
import { openBytes } from "./describe.js";
import type { EvaluationBody, Reporter, TrainJob } from "./job.js";
import {
  prepareRows,
  readDataFile,
  readItem,
  trainableInput,
  type Labelled,
  type PreparedRows,
} from "./rows.js";
import { floatVariant, makeVariants, readVariant } from "./variants.js";

/** New rows below which a run is refused. */
export const TRAINING_ROWS_MIN = 8;
/** Steps of warm-up at most; a tenth of a short run. */
const WARMUP_STEPS_MAX = 20;
const WEIGHT_DECAY = 1e-3;
const PROGRESS_EVERY = 50;

/**
 * One training run: fine-tunes the base version's float model on a snapshot with replay of old data, quantizes it, calibrates its
 * temperature, makes golden cases, baseline, replay and lineage anew, and evaluates what devices will run against the base.
 * Writes the candidate package to `job.outDir`.
 * @throws FieldloopError `training_no_labels`, `training_unsupported_op`, `training_diverged`, `cancelled`, `quantization_rejected`, …
 */
export async function runTrainJob(
  job: TrainJob,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<EvaluationBody> {
  const base = await openPackage(job.baseDir);
  const context: RunContext = { job, base, head: classificationHead(base.manifest), reporter, signal };
  const material = await prepare(context);
  const trained = await train(context, material);
  const { threadCount } = job;
  const candidate = new Candidate(context, material, trained);
  candidate.note("quantizing");
  const { replay, training, validation, holdout } = material.rows;
  const variants = await makeVariants(
    base,
    trained.model,
    { calibration: [replay, training], held: [validation, holdout] },
    { head: context.head, threadCount, signal },
  );
  const float = await openBytes(variants.float.bytes, threadCount);
  try {
    const int8 = variants.int8 && (await openBytes(variants.int8.bytes, threadCount));
    try {
      return await candidate.finish(variants, float, int8);
    } finally {
      await int8?.release();
    }
  } finally {
    await float.release();
  }
}

function classificationHead(manifest: Manifest): ClassificationHead {
  if (manifest.nodes.length > 0) {
    throw new FieldloopError(
      "training_unsupported_op",
      `Train "${manifest.model}": it is a pipeline of ${manifest.nodes.length + 1} models; train one of them, and put it in place with "fieldloop pipeline replace"`,
    );
  }
  const head = decidingHead(manifest.heads);
  if (head?.kind === "classification" && head.activation === "softmax") return head;
  throw new FieldloopError(
    "training_unsupported_op",
    `Train "${manifest.model}": the built-in trainer trains softmax classifiers, its head is "${head?.kind ?? manifest.task}"`,
  );
}

/** Reads and pre-processes everything: the snapshot, split by sample, and the old data that travels with the base. */
async function prepare({ job, base, head, reporter }: RunContext): Promise<Material> {
  trainableInput(base.manifest);
  const { steps, validationShare } = job.settings;
  const validation: Labelled[] = [];
  const training: Labelled[] = [];
  for (const item of job.items) {
    (isValidationSample(item.sample, validationShare) ? validation : training).push(await readItem(item));
  }
  const replay = await readDataFile(base, "replay");
  const holdout = await readDataFile(base, "holdout");
  const total = training.length + validation.length + replay.length + holdout.length;
  let before = 0;
  const load = async (items: readonly Labelled[]): Promise<PreparedRows> => {
    const rows = await prepareRows(base.manifest, head.labels, items, (done) => {
      if (done % PROGRESS_EVERY !== 0) return;
      const message = `reading ${before + done} of ${total} inputs`;
      reporter.progress({ phase: "preparing", step: 0, steps, loss: null, message });
    });
    before += items.length;
    return rows;
  };
  const rows = {
    training: await load(training),
    validation: await load(validation),
    replay: await load(replay),
    holdout: await load(holdout),
  };
  const { labels, skipped } = rows.training;
  if (labels.length < TRAINING_ROWS_MIN) {
    throw new FieldloopError(
      "training_no_labels",
      `Train: ${labels.length} usable labels to train on (${skipped} left out), wanted ${TRAINING_ROWS_MIN}`,
    );
  }
  return { training, validation, replay, holdout, rows };
}

async function train(
  { job, base, head, reporter, signal }: RunContext,
  { rows }: Material,
): Promise<Trained> {
  const { manifest } = base;
  const { trainable, steps, batch, rate, replayShare, validationShare, seed } = job.settings;
  const { threadCount } = job;
  const augmentation = augmentationOf(manifest.lineage.settings["augment"]);
  const augment = makeAugment(manifest.inputs[0]!, augmentation);
  const warmupSteps = Math.min(WARMUP_STEPS_MAX, Math.floor(steps / 10));
  const settings = {
    trainable,
    steps,
    batch,
    rate,
    replayShare,
    seed,
    warmupSteps,
    weightDecay: WEIGHT_DECAY,
  };
  const resume = await readCheckpoint(job.checkpointFile);
  const result = await fit({
    model: await readVariant(base, floatVariant(manifest)),
    backend: ortNode,
    data: { inputs: rows.training.inputs, labels: rows.training.labels },
    ...(rows.replay.labels.length > 0
      ? { replay: { inputs: rows.replay.inputs, labels: rows.replay.labels } }
      : {}),
    settings: { ...settings, output: head.output, loss: "cross_entropy", threadCount },
    ...(augment ? { augment } : {}),
    ...(resume ? { resume } : {}),
    signal,
    onProgress: ({ step, loss }) =>
      reporter.progress({ phase: "training", step, steps, loss, message: "training" }),
    onCheckpoint: (bytes) => writeCheckpoint(job.checkpointFile, bytes),
  });
  return {
    model: result.model,
    loss: result.losses.at(-1) ?? 0,
    backend: result.backend,
    settings: {
      ...settings,
      validationShare,
      threadCount,
      augment: augmentation,
      logitScale: result.logitScale,
      reduceRange: manifest.lineage.settings["reduceRange"] === true,
    },
  };
}

async function readCheckpoint(file: string): Promise<Uint8Array | undefined> {
  try {
    return new Uint8Array(await readFile(file));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Whole or not at all: a run that was killed while it wrote goes on from the checkpoint before. */
async function writeCheckpoint(file: string, bytes: Uint8Array): Promise<void> {
  await writeFile(`${file}.tmp`, bytes, { flush: true });
  await rename(`${file}.tmp`, file);
}
