import { FieldloopError } from "@fieldloop/protocol";
import type { Backend } from "../backend.js";
import { decodeModel, encodeModel } from "../onnx/model.js";
import { replaceInitializers } from "../onnx/writeback.js";
import { hashText } from "../simulate/random.js";
import { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from "./checkpoint.js";
import { Feed, type Augment, type TrainingData } from "./feed.js";
import { sizeOf } from "./graph.js";
import { precomputeFeatures } from "./features.js";
import { resolveLogitScale } from "./logit-scale.js";
import {
  adamW,
  clipGradient,
  gradientNorm,
  guardFinite,
  rateAt,
  sgdMomentum,
  updateAverage,
  type Optimizer,
} from "./optimizer.js";
import { prepareGraph, stripFor, type PreparedGraph } from "./prepare.js";
import { parseTrainingSettings, type TrainingSettings, type TrainingSettingsInput } from "./settings.js";
import { StepRunner } from "./steps.js";
import { buildTrainingGraph, type TrainingGraph } from "./training-graph.js";

export interface TrainingProgress {
  /** Steps done. */
  readonly step: number;
  readonly steps: number;
  readonly epoch: number;
  /** Mean over the steps since the last report. */
  readonly loss: number;
  readonly rate: number;
  readonly gradientNorm: number;
}

export interface Validation {
  readonly step: number;
  readonly score: number;
}

export interface FitOptions {
  /** ONNX file; its float32 weights are the start. */
  readonly model: Uint8Array;
  readonly backend: Backend;
  readonly data: TrainingData;
  /** Old data mixed into every batch, so that what was learnt before is kept. */
  readonly replay?: TrainingData;
  readonly settings?: TrainingSettingsInput;
  readonly augment?: Augment;
  readonly onProgress?: (progress: TrainingProgress) => void;
  /** Polled between steps; an aborted run hands out a last checkpoint and throws `cancelled`. */
  readonly signal?: AbortSignal;
  /** Scores a candidate file, higher is better; the best one is returned in place of the last. */
  readonly validate?: (model: Uint8Array, step: number) => Promise<number>;
  readonly onCheckpoint?: (bytes: Uint8Array, step: number) => Promise<void> | void;
  /** A checkpoint of the same model, data and settings to go on from. */
  readonly resume?: Uint8Array;
}

export interface FitResult {
  /** The given file with the trained tensors replaced; everything else is byte for byte as it was. */
  readonly model: Uint8Array;
  /** Loss of every step. */
  readonly losses: readonly number[];
  /** Step whose parameters were returned. */
  readonly bestStep: number;
  readonly bestScore: number | undefined;
  readonly validations: readonly Validation[];
  /** With all defaults filled in, for lineage; the backend's version and thread count decide the last bits. */
  readonly settings: TrainingSettings;
  readonly backend: string;
  readonly logitScale: number;
  readonly trainedTensors: readonly string[];
  readonly parameterCount: number;
  /** Whether the frozen part was run once over the rows instead of in every step. */
  readonly featuresPrecomputed: boolean;
}

/**
 * Trains a model: forward, loss and gradients are one ONNX graph run by the backend, the optimizer works here on one
 * flat array. Same model, data, settings, backend version, thread count and processor give the same bytes.
 * Throws `training_unsupported_op`, `training_diverged`, `training_no_labels`, `cancelled`, `invalid_argument`.
 */
export async function fit(options: FitOptions): Promise<FitResult> {
  const settings = parseTrainingSettings(options.settings ?? {});
  const whole = await prepareGraph(options.model, {
    ...settings,
    backend: options.backend,
    strip: stripFor(settings.loss),
  });
  const logitScale = await resolveLogitScale(options, settings);
  const features = options.augment ? undefined : await precomputeFeatures(whole, options, settings);
  const { prepared, data, replay } = features ?? {
    prepared: whole,
    data: options.data,
    replay: options.replay,
  };
  const graph = buildTrainingGraph(prepared, settings.loss, logitScale);
  const runner = await StepRunner.open(graph, options.backend, settings);
  try {
    const feed = new Feed({
      ...settings,
      data,
      replay,
      augment: options.augment,
      rowSize: sizeOf(graph.inputDims) / graph.batch,
      targetSize: graph.targetSize,
    });
    const run = new FitRun(options, settings, prepared, graph, runner, feed);
    await run.loop();
    return {
      ...run.result(),
      settings,
      backend: `${options.backend.name} ${options.backend.version}`,
      logitScale,
      trainedTensors: graph.parameters.map((parameter) => parameter.name),
      parameterCount: graph.parameterCount,
      featuresPrecomputed: features !== undefined,
    };
  } finally {
    await runner.release();
  }
}

/** State of one run between its steps. */
class FitRun {
  readonly #options: FitOptions;
  readonly #settings: TrainingSettings;
  readonly #graph: TrainingGraph;
  readonly #runner: StepRunner;
  readonly #feed: Feed;
  readonly #optimizer: Optimizer;
  readonly #average: Float32Array | undefined;
  readonly #steps: number;
  readonly #fingerprint: string;
  #step = 0;
  #losses: number[] = [];
  #reported = 0;
  #best: { step: number; score: number; theta: Float32Array } | undefined;
  #validations: Validation[] = [];

  constructor(
    options: FitOptions,
    settings: TrainingSettings,
    prepared: PreparedGraph,
    graph: TrainingGraph,
    runner: StepRunner,
    feed: Feed,
  ) {
    this.#options = options;
    this.#settings = settings;
    this.#graph = graph;
    this.#runner = runner;
    this.#feed = feed;
    this.#steps = settings.steps ?? settings.epochs * this.#feed.stepsPerEpoch;
    for (const { name, offset } of graph.parameters) {
      runner.theta.set(prepared.graph.constants.get(name)!.data as Float32Array, offset);
    }
    this.#optimizer = makeOptimizer(graph, runner.theta, settings);
    this.#average = settings.emaDecay > 0 ? runner.theta.slice() : undefined;
    const layout = graph.parameters.map(({ name, dims }) => [name, dims]);
    this.#fingerprint = hashText(JSON.stringify([settings, layout])).toString(16);
    if (options.resume) this.#restore(decodeCheckpoint(options.resume));
  }

  async loop(): Promise<void> {
    const { validate, signal } = this.#options;
    const validateEvery = this.#settings.validateEverySteps ?? this.#feed.stepsPerEpoch;
    while (this.#step < this.#steps) {
      if (signal?.aborted) {
        await this.#handOutCheckpoint();
        throw new FieldloopError("cancelled", `Train: cancelled after ${this.#step} of ${this.#steps} steps`);
      }
      await this.#oneStep();
      const last = this.#step === this.#steps;
      if (validate && (last || this.#step % validateEvery === 0) && (await this.#validate(validate))) break;
      if (!last && this.#step % this.#settings.checkpointEverySteps === 0) await this.#handOutCheckpoint();
    }
  }

  async #oneStep(): Promise<void> {
    const { theta, gradient } = this.#runner;
    const batch = await this.#feed.batchAt(this.#step);
    const loss = await this.#runner.run(batch);
    const norm = gradientNorm(gradient);
    guardFinite(loss, norm, this.#step);
    clipGradient(gradient, norm, this.#settings.clipNorm);
    const rate = rateAt(this.#step, { ...this.#settings, steps: this.#steps });
    this.#optimizer.update(theta, gradient, rate, this.#step);
    if (this.#average) updateAverage(this.#average, theta, this.#settings.emaDecay);
    this.#losses.push(loss);
    this.#step++;
    this.#report(rate, norm);
  }

  #report(rate: number, norm: number): void {
    const { onProgress } = this.#options;
    if (!onProgress) return;
    if (this.#step % this.#settings.progressEverySteps !== 0 && this.#step !== this.#steps) return;
    const recent = this.#losses.slice(this.#reported);
    this.#reported = this.#losses.length;
    onProgress({
      step: this.#step,
      steps: this.#steps,
      epoch: Math.floor((this.#step - 1) / this.#feed.stepsPerEpoch),
      loss: recent.reduce((sum, loss) => sum + loss, 0) / recent.length,
      rate,
      gradientNorm: norm,
    });
  }

  /** True when the run should stop early. */
  async #validate(validate: NonNullable<FitOptions["validate"]>): Promise<boolean> {
    const candidate = this.#candidate();
    const score = await validate(this.#write(candidate), this.#step);
    this.#validations.push({ step: this.#step, score });
    if (!this.#best || score > this.#best.score) {
      this.#best = { step: this.#step, score, theta: candidate.slice() };
    }
    const { patience } = this.#settings;
    const stale = this.#validations.filter(({ step }) => step > this.#best!.step).length;
    return patience > 0 && stale >= patience;
  }

  /** The parameters that would be returned now. */
  #candidate(): Float32Array {
    return this.#average ?? this.#runner.theta;
  }

  #write(theta: Float32Array): Uint8Array {
    const model = decodeModel(this.#options.model);
    const values = this.#graph.parameters.map(
      ({ name, offset, size }) => [name, theta.subarray(offset, offset + size)] as const,
    );
    replaceInitializers(model, new Map(values));
    return encodeModel(model);
  }

  async #handOutCheckpoint(): Promise<void> {
    const { onCheckpoint } = this.#options;
    if (!onCheckpoint) return;
    const arrays: Record<string, Float32Array> = { theta: this.#runner.theta, ...this.#optimizer.state };
    if (this.#average) arrays["average"] = this.#average;
    if (this.#best) arrays["best"] = this.#best.theta;
    const bytes = encodeCheckpoint({
      step: this.#step,
      fingerprint: this.#fingerprint,
      validations: this.#validations,
      losses: this.#losses,
      arrays,
    });
    await onCheckpoint(bytes, this.#step);
  }

  #restore(checkpoint: Checkpoint): void {
    if (checkpoint.fingerprint !== this.#fingerprint) {
      throw new FieldloopError(
        "conflict",
        `Resume training: the checkpoint of step ${checkpoint.step} belongs to a run with other settings or tensors`,
      );
    }
    const { arrays } = checkpoint;
    this.#runner.theta.set(arrays["theta"]!);
    for (const [name, state] of Object.entries(this.#optimizer.state)) state.set(arrays[name]!);
    this.#average?.set(arrays["average"]!);
    this.#validations = [...checkpoint.validations];
    const best = bestOf(this.#validations);
    if (best) this.#best = { ...best, theta: arrays["best"]! };
    this.#step = checkpoint.step;
    this.#losses = [...checkpoint.losses];
    this.#reported = this.#losses.length;
  }

  result(): Pick<FitResult, "model" | "losses" | "bestStep" | "bestScore" | "validations"> {
    return {
      model: this.#write(this.#best?.theta ?? this.#candidate()),
      losses: this.#losses,
      bestStep: this.#best?.step ?? this.#step,
      bestScore: this.#best?.score,
      validations: this.#validations,
    };
  }
}

/** The first of the highest scores. */
function bestOf(validations: readonly Validation[]): Validation | undefined {
  return validations.reduce<Validation | undefined>(
    (best, next) => (best === undefined || next.score > best.score ? next : best),
    undefined,
  );
}

/** Below this a tensor's root mean square says nothing (fresh biases are 0). */
const RELATIVE_RATE_FLOOR = 1e-3;

function makeOptimizer(graph: TrainingGraph, theta: Float32Array, settings: TrainingSettings): Optimizer {
  const segments = graph.parameters.map(({ offset, size, dims }) => {
    const rms = gradientNorm(theta.subarray(offset, offset + size)) / Math.sqrt(size);
    return {
      offset,
      size,
      rateScale: settings.relativeRate ? Math.max(rms, RELATIVE_RATE_FLOOR) : 1,
      decay: dims.length >= 2 ? settings.weightDecay : 0,
    };
  });
  return settings.optimizer === "adamw"
    ? adamW(segments, graph.parameterCount)
    : sgdMomentum(segments, graph.parameterCount, settings.momentum);
}
