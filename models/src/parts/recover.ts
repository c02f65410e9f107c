import type { Backend, Baseline } from "@fieldloop/runtime";
import { type CameraCondition, type CameraConditionName, Random } from "@fieldloop/runtime/simulate";
import { fit } from "@fieldloop/runtime/train";
import { drawFrames, type PartsFrames, pickFrames, toRows } from "./data.js";
import { accuracyOf, doubtsOf, errorPrecision, runParts } from "./evaluate.js";
import { turnFrame } from "./feed.js";

/** How the fleet would answer a change in the field; see {@link measureRecovery}. */
export interface RecoveryOptions {
  readonly model: Uint8Array;
  readonly backend: Backend;
  readonly temperature: number;
  readonly baseline: Baseline;
  readonly replay: PartsFrames;
  readonly holdout: PartsFrames;
  /** The two cameras that change are `seed` and `seed + 1`. */
  readonly seed: number;
  readonly condition?: CameraCondition | CameraConditionName;
  readonly labels?: number;
  readonly epochs?: number;
  /** Frames of each camera to choose labels from, and half as many to measure on. */
  readonly framesPerCamera?: number;
}

export interface Recovery {
  readonly seed: number;
  readonly normal: number;
  readonly degraded: number;
  readonly recovered: number;
  readonly oldBefore: number;
  readonly oldAfter: number;
  /** Share of real errors among the 5 % of degraded frames that each score puts first. */
  readonly precision: Readonly<Record<"margin" | "confidence" | "entropy" | "worth", number>>;
  readonly seconds: number;
}

/** Settings of the fine-tuning that the figures in the results file were measured with. */
export const recoverySettings = {
  rate: 3e-3,
  warmupSteps: 20,
  batch: 32,
  replayShare: 0.5,
  weightDecay: 1e-3,
} as const;

/**
 * The loop in small: two cameras degrade, 1,000 frames each are seen, two thirds of the labels go to the frames worth
 * most and one third to random ones, the model is fine-tuned with replay, and both conditions are measured on frames
 * that nothing was trained on.
 */
export async function measureRecovery(options: RecoveryOptions): Promise<Recovery> {
  const { model, backend, seed } = options;
  const condition = options.condition ?? "degraded";
  const draw = { seed, devices: 2, jpeg: "all" } as const;
  const perDevice = options.framesPerCamera ?? 1000;
  const measured = { ...draw, perDevice: Math.round(perDevice / 2), firstIndex: 5000 };
  const seen = await drawFrames({ ...draw, perDevice, firstIndex: 1000, condition });
  const later = await drawFrames({ ...measured, condition });
  const healthy = await drawFrames({ ...measured, condition: "normal" });
  const outputs = await runParts(model, backend, seen);
  const doubts = doubtsOf(outputs, options.temperature, options.baseline);
  const precision = (score: (doubt: (typeof doubts)[number]) => number): number =>
    errorPrecision(outputs, seen.labels, doubts.map(score), 0.05);
  const chosen = choose(
    doubts.map((doubt) => doubt.worth),
    options.labels ?? 300,
    seed,
  );
  const labelled = pickFrames(seen, chosen);
  const started = performance.now();
  const tuned = await fit({
    model,
    backend,
    data: { inputs: toRows(labelled.pixels), labels: labelled.labels },
    replay: { inputs: toRows(options.replay.pixels), labels: options.replay.labels },
    augment: turnFrame,
    settings: { ...recoverySettings, epochs: options.epochs ?? 40, seed },
  });
  const seconds = (performance.now() - started) / 1000;
  const accuracy = async (bytes: Uint8Array, frames: PartsFrames): Promise<number> =>
    accuracyOf((await runParts(bytes, backend, frames)).logits, frames.labels).overall;
  return {
    seed,
    normal: await accuracy(model, healthy),
    degraded: await accuracy(model, later),
    recovered: await accuracy(tuned.model, later),
    oldBefore: await accuracy(model, options.holdout),
    oldAfter: await accuracy(tuned.model, options.holdout),
    precision: {
      margin: precision((doubt) => doubt.margin),
      confidence: precision((doubt) => doubt.confidence),
      entropy: precision((doubt) => -doubt.entropy),
      worth: precision((doubt) => -doubt.worth),
    },
    seconds,
  };
}

/** Two thirds of the labels by worth, the rest by chance among the others. */
function choose(worth: readonly number[], labels: number, seed: number): number[] {
  const order = worth.map((_, place) => place).sort((a, b) => worth[b] - worth[a]);
  const byWorth = order.slice(0, Math.round((labels * 2) / 3));
  const rest = new Random(seed).shuffle(order.slice(byWorth.length));
  return [...byWorth, ...rest.slice(0, labels - byWorth.length)];
}
