/** `@fieldloop/runtime/simulate`: deterministic scenes and signals. Platform-free. */
export { hashSeed, hashText, normalAt, Random } from "./random.js";
export { newPartClass, type PartClass, partClasses } from "./partShapes.js";
export {
  blurredCondition,
  type CameraCondition,
  type CameraConditionName,
  cameraConditions,
  degradedCondition,
  dimCondition,
  dirtyCondition,
  idealCondition,
  type Interval,
  isCameraConditionName,
  normalCondition,
} from "./partsCondition.js";
export type { CameraDraw } from "./partsCamera.js";
export type { PartPose } from "./partsPaint.js";
export {
  createPartsScene,
  type PartsFrame,
  partsFrameSize,
  type PartsScene,
  type PartsSceneOptions,
  type PartsTruth,
} from "./partsScene.js";
export {
  type BearingCondition,
  type BearingFault,
  bearingFaults,
  bearingFaultSeverityMin,
  bearingSampling,
  type BearingSignal,
  type BearingSignalOptions,
  type BearingTruth,
  type BearingWindow,
  createBearingSignal,
  developingFault,
} from "./bearingSignal.js";
