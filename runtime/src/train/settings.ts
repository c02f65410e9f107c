import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";

/** Bounds of a training run; a request beyond them is refused, not clamped. */
export const TRAINING_LIMITS = {
  batchMax: 1024,
  epochsMax: 10_000,
  stepsMax: 1_000_000,
  warmupStepsMax: 100_000,
  /** Rows used to fit the logit scale. */
  logitScaleRowsMax: 1000,
  /** Outputs of the frozen part that are kept in memory. */
  featureBytesMax: 512 * 1024 * 1024,
} as const;

const trainableSchema = z.union([
  z.enum(["head", "last", "all"]),
  z.object({ layers: z.number().int().positive() }),
  z.array(z.string()).min(1),
]);

/** Everything that decides the result of a run, besides the data and the model. Goes into lineage as it is. */
export const TrainingSettingsSchema = z.object({
  loss: z.enum(["cross_entropy", "mse", "binary_cross_entropy"]).default("cross_entropy"),
  /** Model output that the loss reads; the first when absent. */
  output: z.string().optional(),
  trainable: trainableSchema.default("all"),
  /** Passes over the new data; ignored when `steps` is given. */
  epochs: z.number().int().positive().max(TRAINING_LIMITS.epochsMax).default(10),
  steps: z.number().int().positive().max(TRAINING_LIMITS.stepsMax).optional(),
  /** Rows in one step, replayed ones included. */
  batch: z.number().int().positive().max(TRAINING_LIMITS.batchMax).default(32),
  /** Share of each batch that is drawn from the replay data, when there is some. */
  replayShare: z.number().min(0).max(0.9).default(0.5),
  optimizer: z.enum(["adamw", "sgd"]).default("adamw"),
  /** Step size at the end of warm-up. */
  rate: z.number().positive().default(1e-3),
  schedule: z.enum(["cosine", "constant"]).default("cosine"),
  warmupSteps: z.number().int().min(0).max(TRAINING_LIMITS.warmupStepsMax).default(0),
  /** Multiply each tensor's step size by the tensor's own root mean square: survives odd input ranges such as 0..255. */
  relativeRate: z.boolean().default(false),
  /** Decoupled decay of tensors with two dimensions or more; biases and scales are left alone. */
  weightDecay: z.number().min(0).default(0),
  momentum: z.number().min(0).max(0.999).default(0.9),
  /** Gradients longer than this are scaled back to it; 0 switches that off. */
  clipNorm: z.number().min(0).default(0),
  /** Decay of the running average of the parameters that is returned in place of the last ones; 0 switches that off. */
  emaDecay: z.number().min(0).max(0.99999).default(0),
  labelSmoothing: z.number().min(0).max(0.5).default(0),
  /**
   * Factor on the logits inside the loss; "auto" fits it to the old data when the logits of the given model spread so
   * wide that training would start from saturation. The written model keeps its own scale.
   */
  logitScale: z.union([z.literal("auto"), z.number().positive()]).default("auto"),
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(1),
  threadCount: z.number().int().positive().max(256).default(1),
  executionProvider: z.string().default("cpu"),
  /** Steps between two calls of `validate`; one pass over the new data when absent. */
  validateEverySteps: z.number().int().positive().optional(),
  /** Stop after so many validations without a better score; 0 never stops. */
  patience: z.number().int().min(0).default(0),
  checkpointEverySteps: z.number().int().positive().default(100),
  progressEverySteps: z.number().int().positive().default(10),
});

/** Settings as a caller writes them. */
export type TrainingSettingsInput = z.input<typeof TrainingSettingsSchema>;
/** Settings with every default filled in. */
export type TrainingSettings = z.output<typeof TrainingSettingsSchema>;

/** Fills in defaults. Throws `invalid_argument` with the first thing that is wrong. */
export function parseTrainingSettings(settings: TrainingSettingsInput): TrainingSettings {
  const parsed = TrainingSettingsSchema.safeParse(settings);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new FieldloopError(
    "invalid_argument",
    `Read training settings: "${issue?.path.join(".")}": ${issue?.message}`,
  );
}
