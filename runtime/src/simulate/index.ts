/** `@fieldloop/runtime/simulate`: deterministic scenes and signals. Platform-free. */
export { hashSeed, hashText, normalAt, Random } from "./random.js";
export { newPartClass, type PartClass, partClasses } from "./part-shapes.js";
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
} from "./parts-condition.js";
export type { CameraDraw } from "./parts-camera.js";
export type { PartPose } from "./parts-paint.js";
export {
  createPartsScene,
  type PartsFrame,
  partsFrameSize,
  type PartsScene,
  type PartsSceneOptions,
  type PartsTruth,
} from "./parts-scene.js";
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
} from "./bearing-signal.js";
