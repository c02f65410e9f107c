import { readFile } from "node:fs/promises";
import { arch, cpus } from "node:os";
import { join } from "node:path";
import { encodeDataFile, type Manifest } from "@fieldloop/protocol";
import {
  decodeBaseline,
  encodeBaseline,
  type Baseline,
  type ClassificationHead,
  type Session,
} from "@fieldloop/runtime";
import { writePackage, type ManifestDraft, type ModelPackage } from "@fieldloop/runtime/node";
import { compareVersions } from "./compare.js";
import { measureBaseline, measureTemperature, openBytes } from "./describe.js";
import { makeGolden } from "./golden.js";
import type { EvaluationBody, Reporter, TrainJob } from "./job.js";
import { mixReplay } from "./replay.js";
import { spread, type Labelled, type PreparedRows } from "./rows.js";
import { deployedVariant, readVariant, type MadeVariants } from "./variants.js";

/** What every part of a run is about. */
export interface RunContext {
  readonly job: TrainJob;
  readonly base: ModelPackage;
  readonly head: ClassificationHead;
  readonly reporter: Reporter;
  readonly signal: AbortSignal;
}

/** Everything that a run learns from or is measured on, as it came and as the model's input. */
export interface Material {
  readonly training: readonly Labelled[];
  readonly validation: readonly Labelled[];
  readonly replay: readonly Labelled[];
  readonly holdout: readonly Labelled[];
  readonly rows: Readonly<Record<"training" | "validation" | "replay" | "holdout", PreparedRows>>;
}

export interface Trained {
  /** The base's float file with the trained tensors replaced. */
  readonly model: Uint8Array;
  /** Of the last step. */
  readonly loss: number;
  /** Everything that decided the result besides model and data, for lineage. */
  readonly settings: Record<string, string | number | boolean>;
  readonly backend: string;
}

/** Inputs that a baseline is made from, each of training and validation; half old, half new. */
const BASELINE_ITEMS_MAX = 400;
const PROGRESS_EVERY = 50;
const REPLAY_FILE = "replay.bin";

/** A trained model on its way to a package: described, evaluated against the base, and written. */
export class Candidate {
  readonly #context: RunContext;
  readonly #material: Material;
  readonly #trained: Trained;

  constructor(context: RunContext, material: Material, trained: Trained) {
    this.#context = context;
    this.#material = material;
    this.#trained = trained;
  }

  note(message: string): void {
    const { steps } = this.#context.job.settings;
    const { loss } = this.#trained;
    this.#context.reporter.progress({ phase: "packaging", step: steps, steps, loss, message });
  }

  /** Sessions of the variants: what devices run is the int8 one where there is one. */
  async finish(variants: MadeVariants, float: Session, int8: Session | undefined): Promise<EvaluationBody> {
    const { base } = this.#context;
    const deployed = int8 ?? float;
    this.note("calibrating");
    const manifest = await this.#calibrate(deployed);
    const golden = await makeGolden(base, float, int8);
    this.note("measuring the baseline");
    const baseBaseline = await readBaseline(base);
    const baseline = await this.#measureBaseline(manifest, deployed, baseBaseline);
    const evaluation = await this.#evaluate(manifest, variants, deployed, {
      base: baseBaseline,
      candidate: baseline,
    });
    this.note("writing the package");
    const files: Record<string, Uint8Array> = { ...golden.files };
    for (const made of [variants.float, variants.int8]) if (made) files[made.variant.file] = made.bytes;
    if (base.manifest.baseline) files[base.manifest.baseline.file] = encodeBaseline(baseline);
    const draft: ManifestDraft = {
      ...manifest,
      created: this.#context.job.created,
      variants: variantDrafts(base, files),
      golden: golden.golden,
      baseline: base.manifest.baseline && { file: base.manifest.baseline.file },
      ...this.#replay(files),
      ...(await this.#holdout(files)),
      lineage: this.#lineage({ ...variants.metrics, ...accuracies(evaluation) }),
    };
    await writePackage(this.#context.job.outDir, draft, files);
    return evaluation;
  }

  async #calibrate(session: Session): Promise<Manifest> {
    const { base, head, job } = this.#context;
    const { validation, holdout } = this.#material.rows;
    const input = base.manifest.inputs[0]!.name;
    const temperature = await measureTemperature(session, head, input, [validation, holdout]);
    const heads = base.manifest.heads.map((one) => (one === head ? { ...head, temperature } : one));
    return { ...base.manifest, version: job.version, heads };
  }

  #measureBaseline(manifest: Manifest, session: Session, base: Baseline | undefined): Promise<Baseline> {
    const { training, validation, replay, holdout, rows } = this.#material;
    const half = Math.ceil(BASELINE_ITEMS_MAX / 2);
    return measureBaseline({
      manifest,
      session,
      training: [...spread(replay, half), ...spread(training, half)],
      validation: [...spread(holdout, half), ...spread(validation, half)],
      trainingRows: [rows.training],
      base,
      seed: this.#context.job.settings.seed,
    });
  }

  async #evaluate(
    manifest: Manifest,
    variants: MadeVariants,
    session: Session,
    baselines: { base: Baseline | undefined; candidate: Baseline },
  ): Promise<EvaluationBody> {
    const { base, head, job, reporter } = this.#context;
    const { steps } = job.settings;
    const baseVariant = deployedVariant(base.manifest);
    const baseSession = await openBytes(await readVariant(base, baseVariant), job.threadCount);
    try {
      return await compareVersions({
        labels: head.labels,
        base: {
          manifest: base.manifest,
          variant: baseVariant.name,
          session: baseSession,
          ...(baselines.base ? { baseline: baselines.base } : {}),
        },
        candidate: {
          manifest,
          variant: (variants.int8 ?? variants.float).variant.name,
          session,
          baseline: baselines.candidate,
        },
        field: this.#material.validation,
        old: this.#material.holdout,
        onProgress: (done, of) => {
          if (done % PROGRESS_EVERY !== 0) return;
          const message = `evaluating ${done} of ${of} inputs`;
          reporter.progress({ phase: "evaluating", step: steps, steps, loss: null, message });
        },
      });
    } finally {
      await baseSession.release();
    }
  }

  #replay(files: Record<string, Uint8Array>): Pick<ManifestDraft, "replay"> {
    const items = mixReplay(this.#material.replay, this.#material.training);
    files[REPLAY_FILE] = encodeDataFile(items);
    return { replay: { file: REPLAY_FILE, count: items.length, format: "fieldloop-samples-1" } };
  }

  /** The same inputs, byte for byte: "old data no worse" is measured on them for every version. */
  async #holdout(files: Record<string, Uint8Array>): Promise<Pick<ManifestDraft, "holdout">> {
    const { dir, manifest } = this.#context.base;
    if (!manifest.holdout) return { holdout: undefined };
    const { file, count, format } = manifest.holdout;
    files[file] = new Uint8Array(await readFile(join(dir, file)));
    return { holdout: { file, count, format } };
  }

  #lineage(metrics: Record<string, number>): ManifestDraft["lineage"] {
    const { base, job } = this.#context;
    const { settings, backend, loss } = this.#trained;
    const { model, version } = base.manifest;
    return {
      base: { model, version, sha256: base.packageSha256 },
      snapshot: job.snapshot,
      trainer: "fieldloop built-in",
      settings,
      libraries: {
        runtime: backend,
        node: process.version,
        processor: `${arch()} ${cpus()[0]?.model ?? ""}`.trim(),
      },
      revision: null,
      metrics: { loss, ...metrics },
    };
  }
}

/** In the base's order; a variant that was not made again is left out. */
function variantDrafts(
  base: ModelPackage,
  files: Readonly<Record<string, Uint8Array>>,
): ManifestDraft["variants"] {
  return base.manifest.variants
    .filter(({ file }) => Object.hasOwn(files, file))
    .map(({ sha256: _sha256, bytes: _bytes, ...variant }) => variant);
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
  return (
    manifest.baseline && decodeBaseline(new Uint8Array(await readFile(join(dir, manifest.baseline.file))))
  );
}
