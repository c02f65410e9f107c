/** `@fieldloop/runtime/node`: packages on disk, image decoding, sessions and the inference worker on Node. */
export { foldModel } from "./fold.js";
export { openBareRunner, ortNode } from "./ort.js";
export { hostFacts } from "./facts.js";
export { checkGolden, type GoldenReport } from "./golden.js";
export { IMAGE_TYPES, bareDecode, imageTypeOf, prepareImage, type ImageType } from "./image.js";
export { encodeJpeg } from "./jpeg.js";
export {
  DEFAULT_SPIN_DURATION_US,
  openModel,
  type LoadedModel,
  type LoadedPart,
  type OpenModelOptions,
} from "./model.js";
export { openPackage, type ModelPackage, type OpenPackageOptions } from "./package.js";
export {
  buildPipeline,
  replacePart,
  type BuildPipelineOptions,
  type ReplacePartOptions,
} from "./build-pipeline.js";
export { splitPackage, type SplitPackageOptions, type SplitPackageResult } from "./split-package.js";
export { writePackage, type ManifestDraft } from "./write-package.js";
export { ModelWorker, type ModelWorkerOptions, type PredictOptions } from "./worker.js";
export type { LoadedInfo, WorkerModelOptions } from "./worker-messages.js";
export { describeFile, type DescribedFile } from "./complete-shapes.js";
export { readModelFile } from "./read-model-file.js";
export { importModel, type ImportedPackage, type ImportOptions } from "./import.js";
export { inlineFromFolder } from "./external-data.js";
export {
  ableProviders,
  feedsFor,
  inferTensors,
  profileTensors,
  type ProviderAbility,
  type TensorProfile,
} from "./infer.js";
export { tryModel, withTrial, type TrialOptions, type TrialProcess } from "./trial.js";
export type { TensorSummary, TrialResult } from "./trial-messages.js";
export {
  compareWithBaseline,
  runConformance,
  type BaselineDifference,
  type CaseReport,
  type ConformanceOptions,
  type ConformanceReport,
} from "./conformance.js";
export { CONFORMANCE_STATUSES, type ConformanceStatus } from "./conformance-case.js";
export { readCheckpointFile, writeCheckpointFile } from "./checkpoint-file.js";

// Hardware: execution providers, what works here, the fastest correct one
export { backendFor, candidateProviders } from "./backends.js";
export { chooseProviders } from "./providers.js";
export { workingProviders, type WorkingProvidersOptions } from "./providers-host.js";
export type { ProbeOptions, ProviderChoice, ProviderChoices } from "./providers-types.js";
export { checkRuntimeLibrary, libraryEnvironment } from "./runtime-library.js";
export { shareGpuLock } from "./gpu-lock.js";
