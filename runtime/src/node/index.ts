export { foldModel } from "./fold.js";
/** `@fieldloop/runtime/node`: packages on disk, image decoding, sessions and the inference worker on Node. */
export { openBareRunner, ortNode } from "./ort.js";
export { cpuFlagsOf, hostFacts } from "./facts.js";
export { checkGolden, type GoldenReport } from "./golden.js";
export { IMAGE_TYPES, imageSize, imageTypeOf, prepareImage, type ImageType } from "./image.js";
export { encodeJpeg } from "./jpeg.js";
export { DEFAULT_SPIN_DURATION_US, openModel, type LoadedModel, type OpenModelOptions } from "./model.js";
export { openPackage, sha256OfFile, type ModelPackage, type OpenPackageOptions } from "./package.js";
export { writePackage, type ManifestDraft } from "./write-package.js";
export { ModelWorker, type PredictOptions } from "./worker.js";
export type { LoadedInfo, WorkerModelOptions } from "./worker-messages.js";
export { importModel, readModelFile, type ImportOptions } from "./import.js";
export { readCheckpointFile, writeCheckpointFile } from "./checkpoint-file.js";
