import type { Box, Manifest, SignalName } from "@fieldloop/protocol";
import type { Session, Tensor } from "./backend.js";
import { headOutputs, readHeads } from "./heads/read.js";
import { NO_LABEL, type HeadResult } from "./heads/result.js";
import type { Frame, PreparedFrame } from "./input/frame.js";
import { FramePreparer, type ImageSizer } from "./input/prepare.js";
import type { Baseline } from "./profile/baseline.js";
import { computeSignals, deciding, type SignalValues } from "./signals/compute.js";
import { SignalTracker } from "./signals/tracker.js";

/** One result. `class`, `label` and `confidence` are those of the first head that decides something. */
export interface Prediction {
  /** Index in that head's labels; -1 where nothing was detected, or no head decides. */
  readonly class: number;
  readonly label: string;
  /** Of that decision, 0..1; 1 where no head decides. */
  readonly confidence: number;
  /** The manifest's signals; one that this model cannot give is absent. */
  readonly signals: SignalValues;
  /** Pre-processing, run and heads of this frame, in milliseconds. */
  readonly latencyMs: number;
  readonly embedding?: Float32Array;
  /** Detection heads only: best first, corners in 0..1 of the source image. */
  readonly boxes?: readonly Box[];
  readonly heads: readonly HeadResult[];
}

export interface PredictorOptions {
  readonly manifest: Manifest;
  readonly session: Session;
  readonly sizeImage: ImageSizer;
  readonly baseline?: Baseline;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

/** Frame → prediction over one session: pre-processing, run, heads, signals. Belongs to one stream of frames. */
export class Predictor {
  readonly #manifest: Manifest;
  readonly #session: Session;
  readonly #baseline: Baseline | undefined;
  readonly #now: () => number;
  readonly #preparer: FramePreparer;
  readonly #outputs: readonly string[];
  readonly #signals: readonly SignalName[];
  readonly #tracker = new SignalTracker();

  constructor(options: PredictorOptions) {
    this.#manifest = options.manifest;
    this.#session = options.session;
    this.#baseline = options.baseline;
    this.#now = options.now;
    this.#preparer = new FramePreparer(options.manifest, options.sizeImage);
    this.#outputs = headOutputs(options.manifest.heads);
    this.#signals = options.manifest.signals;
  }

  async predict(frame: Frame): Promise<Prediction> {
    const start = this.#now();
    const prepared = await this.#preparer.prepare(frame);
    const outputs = await this.#session.run(prepared.feeds, this.#outputs);
    const results = readHeads(this.#manifest, outputs, prepared.feeds, prepared.geometry);
    const decision = deciding(results);
    const predictedClass = decision?.class ?? -1;
    const signals = computeSignals(this.#signals, {
      results,
      instability: this.#tracker.update(predictedClass),
      ...(prepared.brightness === undefined ? {} : { brightness: prepared.brightness }),
      ...(this.#baseline === undefined ? {} : { baseline: this.#baseline }),
      input: prepared.feeds[this.#manifest.inputs[0]!.name]!,
    });
    if (frame.kind !== "tensors") this.#preparer.recycle(prepared);
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

  /** The feeds that {@link predict} would run, as memory of their own. */
  prepare(frame: Frame): Promise<PreparedFrame> {
    return this.#preparer.prepare(frame);
  }

  /** Every output of the graph, or those named in `fetches`. */
  runTensors(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    return this.#session.run(feeds, fetches);
  }

  /** Forgets what instability looked back on: call it where the stream of frames is another one. */
  resetStream(): void {
    this.#tracker.reset();
  }
}
