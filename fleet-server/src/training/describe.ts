import type { Manifest } from "@fieldloop/protocol";
import {
  fitNovelty,
  Predictor,
  ProfileAccumulator,
  type Baseline,
  type ClassificationHead,
  sampleFrame,
  type Prediction,
  type Session,
} from "@fieldloop/runtime";
import { ortNode, prepareImage } from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";
import { fitTemperature } from "@fieldloop/runtime/train";
import { FieldloopError } from "@fieldloop/protocol";
import type { Labelled, Rows } from "./rows.js";

/** Labelled rows below which the base's temperature is kept: a fit on fewer follows single rows. */
const TEMPERATURE_ROWS_MIN = 50;

/** Opens model bytes that this process made, one thread or more, for runs on this thread. */
export function openBytes(bytes: Uint8Array, threadCount: number): Promise<Session> {
  return ortNode.openSession(bytes, { threadCount, executionProvider: "cpu" });
}

/**
 * Temperature of a classifier from held-out rows (Guo et al. 2017). It never changes which class wins, so fitting it on the rows
 * that the evaluation counts takes nothing from the evaluation.
 */
export async function measureTemperature(
  session: Session,
  head: ClassificationHead,
  input: string,
  parts: readonly Rows[],
): Promise<number> {
  const count = parts.reduce((sum, { labels }) => sum + labels.length, 0);
  if (count < TEMPERATURE_ROWS_MIN || head.values !== "logits" || head.activation !== "softmax")
    return head.temperature;
  const logits = new Float32Array(count * head.labels.length);
  const labels = new Int32Array(count);
  let at = 0;
  for (const part of parts) {
    for (let row = 0; row < part.labels.length; row++, at++) {
      const data = part.inputs.subarray(row * part.rowSize, (row + 1) * part.rowSize);
      const outputs = await session.run({ [input]: { type: "float32", dims: part.dims, data } }, [
        head.output,
      ]);
      logits.set(outputs[head.output]!.data as Float32Array, at * head.labels.length);
      labels[at] = part.labels[row]!;
    }
  }
  return fitTemperature(logits, labels);
}

/** A predictor over one session, each frame on its own: nothing is carried from one to the next. */
export class FramePredictor {
  readonly #predictor: Predictor;

  constructor(manifest: Manifest, session: Session, baseline?: Baseline) {
    this.#predictor = new Predictor({
      manifest,
      session,
      sizeImage: prepareImage,
      now: () => performance.now(),
      ...(baseline ? { baseline } : {}),
    });
  }

  /** @returns undefined for an input that cannot be decoded */
  async predict(item: Labelled): Promise<Prediction | undefined> {
    this.#predictor.resetStream();
    try {
      return await this.#predictor.predict(sampleFrame(item.media, item.payload));
    } catch (error) {
      if (error instanceof FieldloopError && error.code !== "model_run_failed") return undefined;
      throw error;
    }
  }
}

export interface BaselineOptions {
  readonly manifest: Manifest;
  readonly session: Session;
  /** What the model was trained on, old and new. */
  readonly training: readonly Labelled[];
  /** What it was not trained on, old and new. */
  readonly validation: readonly Labelled[];
  readonly trainingRows: readonly Rows[];
  readonly base: Baseline | undefined;
  readonly seed: number;
}

/** What healthy looks like for the new version: the base's baseline made again, on its own data and the new. */
export async function measureBaseline(options: BaselineOptions): Promise<Baseline> {
  const { manifest, session, base } = options;
  const inputRange = base?.inputRange && widen(base.inputRange, options.trainingRows);
  const plain = new FramePredictor(manifest, session);
  const training = await embeddings(plain, options.training);
  const held = await embeddings(plain, options.validation);
  const random = new Random(options.seed);
  const novelty =
    base?.novelty && training.length > 0 && held.length > 0
      ? fitNovelty({
          training,
          validation: held,
          centroidCount: base.novelty.count,
          random: () => random.uniform(),
        })
      : undefined;
  const parts = { ...(novelty ? { novelty } : {}), ...(inputRange ? { inputRange } : {}) };
  const empty = new ProfileAccumulator().snapshot();
  const profile = new ProfileAccumulator();
  const predictor = new FramePredictor(manifest, session, { statistics: empty, ...parts });
  for (const item of options.validation) {
    const prediction = await predictor.predict(item);
    if (prediction) profile.add(prediction);
  }
  return { statistics: profile.snapshot(), ...parts };
}

async function embeddings(predictor: FramePredictor, items: readonly Labelled[]): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  for (const item of items) {
    const embedding = (await predictor.predict(item))?.embedding;
    if (embedding) vectors.push(embedding.slice());
  }
  return vectors;
}

function widen(range: { min: number; max: number }, parts: readonly Rows[]): { min: number; max: number } {
  let { min, max } = range;
  for (const { inputs } of parts) {
    for (const value of inputs) {
      if (value < min) min = value;
      if (value > max) max = value;
    }
  }
  return { min, max };
}
