import {
  FieldloopError,
  toFieldloopError,
  type Box,
  type Manifest,
  type SignalName,
} from "@fieldloop/protocol";
import type { Session, Tensor } from "./backend.js";
import { headOutputs, readHeads } from "./heads/read.js";
import { NO_LABEL, type HeadResult } from "./heads/result.js";
import { BatchRunner } from "./input/batch.js";
import { batchFramesMax } from "./input/extent.js";
import { zeroState } from "./input/fixed.js";
import type { Frame, PreparedFrame } from "./input/frame.js";
import { INPUT_LIMITS } from "./input/limits.js";
import { FramePreparer, frameInput, type ImageSizer } from "./input/prepare.js";
import { MAIN_STREAM, StreamTable, type StreamState } from "./input/stream.js";
import type { Baseline } from "./profile/baseline.js";
import type { NodeResult } from "./pipeline/result.js";
import { computeSignals, deciding, type SignalValues } from "./signals/compute.js";

/** One result. `class`, `label` and `confidence` are those of the first head that decides something. */
export interface Prediction {
  /** Index in that head's labels; -1 where nothing was detected, or no head decides. */
  readonly class: number;
  readonly label: string;
  /** Of that decision, 0..1; 1 where no head decides. */
  readonly confidence: number;
  /** The manifest's signals; one that this model cannot give is absent. */
  readonly signals: SignalValues;
  /** Pre-processing, run and heads of this frame, or of the batch it was run in, in milliseconds. */
  readonly latencyMs: number;
  readonly embedding?: Float32Array;
  /** Detection heads only: best first, corners in 0..1 of the source image. */
  readonly boxes?: readonly Box[];
  readonly heads: readonly HeadResult[];
  /** Pipelines only: what each further node said of this frame, or of each of its boxes. */
  readonly nodes?: readonly NodeResult[];
}

type Tensors = Readonly<Record<string, Tensor>>;

export interface PredictorOptions {
  /** A whole manifest, or the part of it that describes one node of a pipeline. */
  readonly manifest: Pick<Manifest, "inputs" | "heads" | "signals">;
  readonly session: Session;
  readonly sizeImage: ImageSizer;
  readonly baseline?: Baseline;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

export interface PredictWithOptions {
  readonly stream?: string;
  /** Outputs of the graph beyond those that the heads read. The same array each time costs nothing. */
  readonly alsoFetch?: readonly string[];
}

/** A prediction with everything that led to it. */
export interface DetailedPrediction {
  readonly prediction: Prediction;
  /** Outputs by name: those of the heads, of the state inputs, and of `alsoFetch`. */
  readonly outputs: Tensors;
  /** Give it to {@link Predictor.recycle} once it is not read any more, or keep it. */
  readonly prepared: PreparedFrame;
}

/** One frame of a batch: its prediction, or why there is none. */
export type BatchItem =
  | { readonly ok: true; readonly prediction: Prediction }
  | { readonly ok: false; readonly error: FieldloopError };

/**
 * Frame → prediction over one session: pre-processing, run, heads, signals. Serves several streams of frames: each has its
 * own instability, window context and recurrent state. Frames of one stream of a model with state are run in the order of
 * the calls.
 */
export class Predictor {
  readonly #manifest: PredictorOptions["manifest"];
  readonly #session: Session;
  readonly #baseline: Baseline | undefined;
  readonly #now: () => number;
  readonly #preparer: FramePreparer;
  readonly #signals: readonly SignalName[];
  readonly #signalInput: string | undefined;
  /** Outputs of heads and state; undefined (all of the graph's) where there are none. */
  readonly #fetches: readonly string[] | undefined;
  readonly #stateOutputs: readonly StateOutput[];
  /** Whether a frame's result depends on the frames before it. */
  readonly #sequential: boolean;
  readonly #streams = new StreamTable();
  readonly #batches: BatchRunner;
  /** Frames that are prepared and run together. */
  readonly #batchMax: number;
  #alsoFetch: { readonly names: readonly string[]; readonly fetches: readonly string[] } | undefined;

  constructor(options: PredictorOptions) {
    const { manifest } = options;
    this.#manifest = manifest;
    this.#session = options.session;
    this.#baseline = options.baseline;
    this.#now = options.now;
    this.#preparer = new FramePreparer(manifest, options.sizeImage);
    this.#signals = manifest.signals;
    this.#signalInput = frameInput(manifest.inputs)?.name;
    this.#stateOutputs = manifest.inputs.flatMap((input) =>
      input.kind === "state"
        ? [{ input: input.name, output: input.output, values: zeroState(input).data.length }]
        : [],
    );
    this.#sequential = this.#stateOutputs.length > 0 || this.#preparer.hasContext;
    const wanted = new Set([
      ...headOutputs(manifest.heads),
      ...this.#stateOutputs.map(({ output }) => output),
    ]);
    this.#fetches = wanted.size === 0 ? undefined : [...wanted];
    this.#batches = new BatchRunner(options.session, manifest.inputs, this.#fetches);
    this.#batchMax = batchFramesMax(manifest.inputs);
  }

  /** @throws FieldloopError `model_output_invalid`, `model_run_failed`, `invalid_argument` and the codes of images, windows and rows */
  async predict(frame: Frame, stream: string = MAIN_STREAM): Promise<Prediction> {
    const { prediction, prepared } = await this.#detailed(frame, stream, this.#fetches);
    this.#preparer.recycle(prepared);
    return prediction;
  }

  /** As {@link predict}, with the tensors behind it: what further nodes of a pipeline are fed with. */
  predictWith(frame: Frame, options: PredictWithOptions = {}): Promise<DetailedPrediction> {
    return this.#detailed(frame, options.stream ?? MAIN_STREAM, this.#fetchesWith(options.alsoFetch));
  }

  /**
   * Several frames of one stream in one run of the graph, where its batch size is dynamic, nothing is carried from frame
   * to frame, and a trial showed that the items of a batch do not influence each other; one after the other where not.
   * @throws FieldloopError `limit_exceeded` for more than {@link INPUT_LIMITS.batchFramesMax} frames
   */
  async predictBatch(frames: readonly Frame[], stream: string = MAIN_STREAM): Promise<BatchItem[]> {
    if (frames.length > INPUT_LIMITS.batchFramesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Predict batch: ${frames.length} frames, at most ${INPUT_LIMITS.batchFramesMax} allowed`,
      );
    }
    const items: BatchItem[] = [];
    for (let at = 0; at < frames.length; at += this.#batchMax) {
      items.push(...(await this.#predictSome(frames.slice(at, at + this.#batchMax), stream)));
    }
    return items;
  }

  async #predictSome(frames: readonly Frame[], stream: string): Promise<BatchItem[]> {
    if (frames.length > 1 && !this.#sequential && this.#batches.possible) {
      const items = await this.#runTogether(frames, this.#streams.of(stream));
      if (items !== undefined) return items;
    }
    return this.#sequential ? this.#inOrder(frames, stream) : this.#preparedAhead(frames, stream);
  }

  async #inOrder(frames: readonly Frame[], stream: string): Promise<BatchItem[]> {
    const items: BatchItem[] = [];
    for (const frame of frames) items.push(await settle(this.predict(frame, stream)));
    return items;
  }

  /** One run after the other; an image is decoded, by a thread of its own, while the graph runs on the one before. */
  async #preparedAhead(frames: readonly Frame[], stream: string): Promise<BatchItem[]> {
    const state = this.#streams.of(stream);
    const begin = (frame: Frame | undefined) =>
      frame && { start: this.#now(), prepared: settled(this.#preparer.prepare(frame, state)) };
    const items: BatchItem[] = [];
    let next = begin(frames[0]);
    for (let at = 1; next !== undefined; at++) {
      const { start, prepared } = next;
      const ready = await prepared;
      next = begin(frames[at]);
      items.push(
        ready instanceof FieldloopError
          ? { ok: false, error: ready }
          : await settle(this.#runOne(ready, state, start)),
      );
    }
    return items;
  }

  async #runOne(prepared: PreparedFrame, state: StreamState, start: number): Promise<Prediction> {
    const outputs = await this.#session.run(prepared.feeds, this.#fetches);
    const prediction = this.#read(outputs, prepared, state, start);
    this.#preparer.recycle(prepared);
    return prediction;
  }

  /** Whether {@link predictBatch} runs frames together; undefined until a trial showed it. */
  get batches(): boolean | undefined {
    if (this.#sequential || !this.#batches.possible) return false;
    return this.#batches.proven ? true : undefined;
  }

  /** The feeds that {@link predict} would run now, as memory of their own. The stream stays as it is. */
  prepare(frame: Frame, stream: string = MAIN_STREAM): Promise<PreparedFrame> {
    return this.#preparer.prepare(frame, this.#streams.of(stream));
  }

  /** Lets the next frame reuse the memory of this one. Only after the last reading of its feeds. */
  recycle(prepared: PreparedFrame): void {
    this.#preparer.recycle(prepared);
  }

  /**
   * A frame of the stream that this model is not run on: after the gap its recurrent state starts anew; the samples that its windows
   * look back on go on.
   */
  async passOver(frame: Frame, stream: string = MAIN_STREAM): Promise<void> {
    if (!this.#sequential) return;
    const state = this.#streams.of(stream);
    await state.inOrder(async () => {
      state.states.clear();
      if (!this.#preparer.hasContext) return;
      const prepared = await this.#preparer.prepare(frame, state);
      for (const [input, samples] of prepared.contexts ?? []) state.contexts.set(input, samples);
      this.#preparer.recycle(prepared);
    });
  }

  /** Every output of the graph, or those named in `fetches`. */
  runTensors(feeds: Tensors, fetches?: readonly string[]): Promise<Record<string, Tensor>> {
    return this.#session.run(feeds, fetches);
  }

  /** Forgets what a stream (all of them by default) carries: call it where its frames come from something else. */
  resetStream(stream?: string): void {
    this.#streams.forget(stream);
  }

  #detailed(
    frame: Frame,
    stream: string,
    fetches: readonly string[] | undefined,
  ): Promise<DetailedPrediction> {
    const state = this.#streams.of(stream);
    return this.#sequential
      ? state.inOrder(() => this.#predictOne(frame, state, fetches))
      : this.#predictOne(frame, state, fetches);
  }

  async #predictOne(
    frame: Frame,
    state: StreamState,
    fetches: readonly string[] | undefined,
  ): Promise<DetailedPrediction> {
    const start = this.#now();
    const prepared = await this.#preparer.prepare(frame, state);
    const outputs = await this.#session.run(prepared.feeds, fetches);
    const prediction = this.#read(outputs, prepared, state, start);
    this.#carry(outputs, prepared, state);
    return { prediction, outputs, prepared };
  }

  #read(outputs: Tensors, prepared: PreparedFrame, state: StreamState, start: number): Prediction {
    const results = readHeads(this.#manifest, outputs, prepared.feeds, prepared.geometry, this.#baseline);
    const decision = deciding(results);
    const predictedClass = decision?.class ?? -1;
    const input = this.#signalInput === undefined ? undefined : prepared.feeds[this.#signalInput];
    const signals = computeSignals(this.#signals, {
      results,
      instability: state.tracker.update(predictedClass),
      ...(prepared.brightness === undefined ? {} : { brightness: prepared.brightness }),
      ...(this.#baseline === undefined ? {} : { baseline: this.#baseline }),
      ...(input === undefined || input.type === "string" ? {} : { input }),
    });
    const embedding = results.find((result) => result.kind === "embedding")?.embedding;
    const boxes = results.find((result) => result.kind === "detection")?.boxes;
    return {
      class: predictedClass,
      label: decision?.label ?? NO_LABEL,
      confidence: decision?.confidence ?? 1,
      signals,
      latencyMs: this.#now() - start,
      ...(embedding === undefined ? {} : { embedding }),
      ...(boxes === undefined ? {} : { boxes }),
      heads: results,
    };
  }

  /**
   * State for the stream's next frame: the very tensors that the run gave. A state that is not finite would never heal, one that grows
   * would fill the memory.
   */
  #carry(outputs: Tensors, prepared: PreparedFrame, state: StreamState): void {
    for (const { input, output, values } of this.#stateOutputs) {
      const tensor = outputs[output];
      if (tensor === undefined) {
        throw new FieldloopError(
          "model_output_invalid",
          `Carry state "${input}": the run has no tensor "${output}"`,
        );
      }
      if (tensor.data.length !== values) {
        throw new FieldloopError(
          "model_output_invalid",
          `Carry state "${input}": output "${output}" has ${tensor.data.length} values, the state ${values}`,
        );
      }
      if (!isAllFinite(tensor)) {
        throw new FieldloopError(
          "model_output_invalid",
          `Carry state "${input}": output "${output}" holds values that are not finite`,
        );
      }
    }
    for (const { input, output } of this.#stateOutputs) state.states.set(input, outputs[output]!);
    if (prepared.contexts === undefined) return;
    for (const [input, samples] of prepared.contexts) state.contexts.set(input, samples);
  }

  #fetchesWith(names: readonly string[] | undefined): readonly string[] | undefined {
    if (names === undefined || names.length === 0) return this.#fetches;
    if (this.#alsoFetch?.names !== names) {
      this.#alsoFetch = { names, fetches: [...new Set([...(this.#fetches ?? []), ...names])] };
    }
    return this.#alsoFetch.fetches;
  }

  /** @returns undefined where the run as a whole did not succeed, so that single runs can tell which frame it was */
  async #runTogether(frames: readonly Frame[], state: StreamState): Promise<BatchItem[] | undefined> {
    const start = this.#now();
    const settled = await this.#prepareAll(frames, state);
    const feeds = settled.flatMap((item) => (item instanceof FieldloopError ? [] : [item.feeds]));
    const outputs = feeds.length === 0 ? [] : await this.#batches.run(feeds);
    if (outputs === undefined) return undefined;
    let next = 0;
    return settled.map((prepared) => {
      if (prepared instanceof FieldloopError) return { ok: false, error: prepared };
      try {
        const prediction = this.#read(outputs[next++]!, prepared, state, start);
        this.#preparer.recycle(prepared);
        return { ok: true, prediction };
      } catch (error) {
        return { ok: false, error: toFieldloopError(error) };
      }
    });
  }

  async #prepareAll(
    frames: readonly Frame[],
    state: StreamState,
  ): Promise<(PreparedFrame | FieldloopError)[]> {
    const prepared: (PreparedFrame | FieldloopError)[] = [];
    for (const frame of frames) {
      prepared.push(await this.#preparer.prepare(frame, state).catch(toFieldloopError));
    }
    return prepared;
  }
}

/** What a run says of the next one's state, and how many values it holds. */
interface StateOutput {
  readonly input: string;
  readonly output: string;
  readonly values: number;
}

/** A promise of which nobody may hear for a while: its failure is a value. */
function settled(work: Promise<PreparedFrame>): Promise<PreparedFrame | FieldloopError> {
  return work.catch(toFieldloopError);
}

async function settle(work: Promise<Prediction>): Promise<BatchItem> {
  try {
    return { ok: true, prediction: await work };
  } catch (error) {
    return { ok: false, error: toFieldloopError(error) };
  }
}

function isAllFinite({ data, type }: Tensor): boolean {
  // Exponent bits all set: infinity or NaN (IEEE 754 binary16).
  if (type === "float16") return !(data as Uint16Array).some((bits) => (bits & 0x7c00) === 0x7c00);
  if (!(data instanceof Float32Array || data instanceof Float64Array)) return true;
  let sum = 0;
  // Infinity − Infinity and 0 · NaN are NaN, so one sum tells of every value.
  for (let at = 0; at < data.length; at++) sum += data[at]! * 0;
  return sum === 0;
}
