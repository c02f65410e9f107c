export { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from "./checkpoint.js";
export {
  balancedWeights,
  epochOrder,
  type Augment,
  type TrainingData,
  type TrainingRows,
  type TrainingStream,
} from "./feed.js";
export { planTraining, type TrainingPlan } from "./explain.js";
export { fit, type FitOptions, type FitResult, type TrainingProgress, type Validation } from "./fit.js";
export { accuracyOf, argMaxRows, runRows, type RowOutputs, type RunRowsOptions } from "./infer.js";
export { initializeWeights } from "./initialize.js";
export type { Layer, Trainable } from "./layers.js";
export type { LossKind } from "./losses.js";
export type { FinalActivation } from "./prepare.js";
export { TRAINABLE_OPS } from "./rules/table.js";
export {
  parseTrainingSettings,
  TRAINING_LIMITS,
  TrainingSettingsSchema,
  type TrainingSettings,
  type TrainingSettingsInput,
} from "./settings.js";
export { fitTemperature, TEMPERATURE_LIMITS } from "./temperature.js";
