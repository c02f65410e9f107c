import { readFile, rename, writeFile } from "node:fs/promises";
import { arch, cpus } from "node:os";
import { join } from "node:path";
import { encodeDataFile, FieldloopError, type Manifest } from "@fieldloop/protocol";
import { decodeBaseline, encodeBaseline, type Baseline, type ClassificationHead, type Session } from "@fieldloop/runtime";
import { openPackage, ortNode, writePackage, type ModelPackage } from "@fieldloop/runtime/node";
import { fit } from "@fieldloop/runtime/train";
import { isValidationSample } from "../domain/split.js";
import { augmentationOf, makeAugment } from "./augment.js";
import { compareVersions } from "./compare.js";
import { measureBaseline, measureTemperature, openBytes } from "./describe.js";
import { makeGolden } from "./golden.js";
import type { EvaluationBody, Reporter, TrainJob } from "./job.js";
import { mixReplay } from "./replay.js";
import { prepareRows, readDataFile, readItem, spread, trainableInput, type Labelled, type Rows } from "./rows.js";
import { deployedVariant, floatVariant, makeVariants, readVariant, type VariantFile } from "./variants.js";

/** New rows below which a run is refused. */
export const TRAINING_ROWS_MIN = 8;
/** Steps of warm-up at most; a tenth of a short run. */
const WARMUP_STEPS_MAX = 20;
const WEIGHT_DECAY = 1e-3;
/** Inputs that a baseline is made from, each of old and new, training and validation. */
const BASELINE_ITEMS_MAX = 400;
const PROGRESS_EVERY = 50;

interface Material {
  readonly training: readonly Labelled[];
  readonly validation: readonly Labelled[];
  readonly replay: readonly Labelled[];
  readonly holdout: readonly Labelled[];
  readonly rows: { readonly training: Rows; readonly validation: Rows; readonly replay: Rows; readonly holdout: Rows };
}

/**
 * One training run: fine-tunes the base version's float model on a snapshot with replay of old data, quantizes it, calibrates its
 * temperature, makes golden cases, baseline, replay and lineage anew, and evaluates what devices will run against the base.
 * Writes the candidate package to `job.outDir`.
 * @throws FieldloopError `training_no_labels`, `training_unsupported_op`, `training_diverged`, `cancelled`, `quantization_rejected`, …
 */
export async function runTrainJob(job: TrainJob, reporter: Reporter, signal: AbortSignal): Promise<EvaluationBody> {
  const base = await openPackage(job.baseDir);
  const head = classificationHead(base.manifest);
  const material = await prepare(job, base, head, reporter);
  const trained = await train(job, base, material, head, reporter, signal);
  reporter.progress({ phase: "packaging", step: trained.steps, steps: trained.steps, loss: trained.loss, message: "quantizing" });
  const { rows } = material;
  const variants = await makeVariants(base, trained.model, [rows.replay, rows.training], { threadCount: job.threadCount, signal });
  const sessions: Session[] = [];
  try {
    for (const { bytes } of variants.files) sessions.push(await openBytes(bytes, job.threadCount));
    return await describeAndEvaluate(job, base, head, material, trained, variants, sessions, reporter);
  } finally {
    for (const session of sessions) await session.release();
  }
}

interface Trained {
  readonly model: Uint8Array;
  readonly steps: number;
  readonly loss: number;
  readonly settings: Record<string, string | number | boolean | null>;
  readonly backend: string;
}

function classificationHead(manifest: Manifest): ClassificationHead {
  const head = manifest.heads.find(({ kind }) => kind !== "embedding");
  if (head?.kind === "classification" && head.activation === "softmax") return head;
  throw new FieldloopError(
    "training_unsupported_op",
    `Train "${manifest.model}": the built-in trainer trains softmax classifiers, its head is "${head?.kind ?? "embedding"}"`,
  );
}

async function prepare(job: TrainJob, base: ModelPackage, head: ClassificationHead, reporter: Reporter): Promise<Material> {
  trainableInput(base.manifest);
  const share = job.settings.validationShare;
  const validation: Labelled[] = [];
  const training: Labelled[] = [];
  for (const item of job.items) (isValidationSample(item.sample, share) ? validation : training).push(await readItem(item));
  const replay = await readDataFile(base, "replay");
  const holdout = await readDataFile(base, "holdout");
  const total = training.length + validation.length + replay.length + holdout.length;
  let before = 0;
  const load = async (items: readonly Labelled[]): Promise<Rows & { skipped: number }> => {
    const rows = await prepareRows(base.manifest, head.labels, items, (done) => {
      if (done % PROGRESS_EVERY !== 0) return;
      reporter.progress({ phase: "preparing", step: 0, steps: job.settings.steps, loss: null, message: `reading ${before + done} of ${total} inputs` });
    });
    before += items.length;
    return rows;
  };
  const rows = { training: await load(training), validation: await load(validation), replay: await load(replay), holdout: await load(holdout) };
  if (rows.training.labels.length < TRAINING_ROWS_MIN) {
    throw new FieldloopError(
      "training_no_labels",
      `Train: ${rows.training.labels.length} usable labels to train on (${rows.training.skipped} left out), wanted ${TRAINING_ROWS_MIN}`,
    );
  }
  return { training, validation, replay, holdout, rows };
}

async function train(
  job: TrainJob,
  base: ModelPackage,
  { rows }: Material,
  head: ClassificationHead,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<Trained> {
  const { manifest } = base;
  const { trainable, steps, batch, rate, replayShare, seed } = job.settings;
  const augmentation = augmentationOf(manifest.lineage.settings["augment"]);
  const augment = makeAugment(manifest.inputs[0]!, augmentation);
  const warmupSteps = Math.min(WARMUP_STEPS_MAX, Math.floor(steps / 10));
  const settings = { trainable, steps, batch, rate, replayShare, seed, warmupSteps, weightDecay: WEIGHT_DECAY };
  const resume = await readCheckpoint(job.checkpointFile);
  const result = await fit({
    model: await readVariant(base, floatVariant(manifest)),
    backend: ortNode,
    data: { inputs: rows.training.inputs, labels: rows.training.labels },
    ...(rows.replay.labels.length > 0 ? { replay: { inputs: rows.replay.inputs, labels: rows.replay.labels } } : {}),
    settings: { ...settings, output: head.output, loss: "cross_entropy", threadCount: job.threadCount },
    ...(augment ? { augment } : {}),
    ...(resume ? { resume } : {}),
    signal,
    onProgress: ({ step, loss }) => reporter.progress({ phase: "training", step, steps, loss, message: "training" }),
    onCheckpoint: (bytes) => writeCheckpoint(job.checkpointFile, bytes),
  });
  return {
    model: result.model,
    steps,
    loss: result.losses.at(-1) ?? 0,
    backend: result.backend,
    settings: {
      ...settings,
      validationShare: job.settings.validationShare,
      augment: augmentation,
      threadCount: job.threadCount,
      logitScale: result.logitScale,
      reduceRange: manifest.lineage.settings["reduceRange"] === true,
    },
  };
}

async function describeAndEvaluate(
  job: TrainJob,
  base: ModelPackage,
  head: ClassificationHead,
  material: Material,
  trained: Trained,
  variants: { files: readonly VariantFile[]; metrics: Record<string, number> },
  sessions: readonly Session[],
  reporter: Reporter,
): Promise<EvaluationBody> {
  const { rows } = material;
  const float = sessions[0]!;
  const deployed = sessions.at(-1)!;
  const note = (message: string): void =>
    reporter.progress({ phase: "packaging", step: trained.steps, steps: trained.steps, loss: trained.loss, message });
  note("calibrating");
  const input = base.manifest.inputs[0]!.name;
  const temperature = await measureTemperature(deployed, head, input, [rows.validation, rows.holdout]);
  const manifest: Manifest = {
    ...base.manifest,
    version: job.version,
    heads: base.manifest.heads.map((one) => (one === head ? { ...head, temperature } : one)),
  };
  const golden = await makeGolden(base, float, sessions.length > 1 ? deployed : undefined);
  note("measuring the baseline");
  const baseBaseline = await readBaseline(base);
  const half = Math.ceil(BASELINE_ITEMS_MAX / 2);
  const baseline = await measureBaseline({
    manifest,
    session: deployed,
    training: [...spread(material.replay, half), ...spread(material.training, half)],
    validation: [...spread(material.holdout, half), ...spread(material.validation, half)],
    trainingRows: [rows.training],
    base: baseBaseline,
    seed: job.settings.seed,
  });
  const evaluation = await evaluate(job, base, baseBaseline, manifest, baseline, deployed, variants.files.at(-1)!, material, head, reporter);
  note("writing the package");
  const data = {
    replay: mixReplay(material.replay, material.training),
    holdout: material.holdout,
  };
  const files: Record<string, Uint8Array> = { ...golden.files };
  for (const { variant, bytes } of variants.files) files[variant.file] = bytes;
  if (base.manifest.baseline) files[base.manifest.baseline.file] = encodeBaseline(baseline);
  if (data.replay.length > 0) files["replay.bin"] = encodeDataFile(data.replay);
  // The same inputs, byte for byte: "old data no worse" is measured on them for every version.
  if (base.manifest.holdout) {
    files[base.manifest.holdout.file] = new Uint8Array(await readFile(join(base.dir, base.manifest.holdout.file)));
  }
  await writePackage(
    job.outDir,
    {
      ...manifest,
      created: job.created,
      variants: variants.files.map(({ variant: { sha256: _hash, bytes: _bytes, ...variant } }) => variant),
      golden: golden.golden,
      baseline: base.manifest.baseline && { file: base.manifest.baseline.file },
      replay:
        data.replay.length > 0 ? { file: "replay.bin", count: data.replay.length, format: "fieldloop-samples-1" } : undefined,
      holdout: base.manifest.holdout && {
        file: base.manifest.holdout.file,
        count: base.manifest.holdout.count,
        format: base.manifest.holdout.format,
      },
      lineage: {
        base: { model: base.manifest.model, version: base.manifest.version, sha256: base.packageSha256 },
        snapshot: job.snapshot,
        trainer: "fieldloop built-in",
        settings: trained.settings,
        libraries: { runtime: trained.backend, node: process.version, cpu: `${arch()} ${cpus()[0]?.model ?? ""}`.trim() },
        revision: null,
        metrics: { ...variants.metrics, loss: trained.loss, ...accuracies(evaluation) },
      },
    },
    files,
  );
  return evaluation;
}

async function evaluate(
  job: TrainJob,
  base: ModelPackage,
  baseBaseline: Baseline | undefined,
  manifest: Manifest,
  baseline: Baseline,
  session: Session,
  { variant }: VariantFile,
  material: Material,
  head: ClassificationHead,
  reporter: Reporter,
): Promise<EvaluationBody> {
  const baseVariant = deployedVariant(base.manifest);
  const baseSession = await openBytes(await readVariant(base, baseVariant), job.threadCount);
  try {
    return await compareVersions({
      labels: head.labels,
      base: { manifest: base.manifest, variant: baseVariant.name, session: baseSession, ...(baseBaseline ? { baseline: baseBaseline } : {}) },
      candidate: { manifest, variant: variant.name, session, baseline },
      field: material.validation,
      old: material.holdout,
      onProgress: (done, of) => {
        if (done % PROGRESS_EVERY !== 0) return;
        const { steps } = job.settings;
        reporter.progress({ phase: "evaluating", step: steps, steps, loss: null, message: `evaluating ${done} of ${of} inputs` });
      },
    });
  } finally {
    await baseSession.release();
  }
}

/** For lineage: the accuracies that the evaluation measured. */
function accuracies(evaluation: EvaluationBody): Record<string, number> {
  return Object.fromEntries(
    evaluation.slices.flatMap(({ slice, base, candidate }) => [
      [`${slice}Accuracy`, candidate.accuracy.value ?? 0],
      [`${slice}AccuracyBase`, base.accuracy.value ?? 0],
    ]),
  );
}

async function readBaseline({ dir, manifest }: ModelPackage): Promise<Baseline | undefined> {
  return manifest.baseline && decodeBaseline(new Uint8Array(await readFile(join(dir, manifest.baseline.file))));
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
