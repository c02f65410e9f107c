export type {
  Backend,
  ElementType,
  Session,
  SessionOptions,
  Tensor,
  TensorData,
  TensorInfo,
} from "./backend.js";

// ONNX graphs
export type {
  AttributeProto,
  GraphProto,
  ModelProto,
  NodeProto,
  TensorProto,
  ValueInfoProto,
} from "./onnx/generated/onnx_pb.js";
export { GraphBuilder, valueInfo, type BuildOptions } from "./onnx/builder.js";
export {
  attribute,
  consumerMap,
  definedNames,
  floatAttribute,
  initializerMap,
  intAttribute,
  intsAttribute,
  makeAttribute,
  makeFunction,
  makeNode,
  namesRead,
  namesWithin,
  nodeLabel,
  producerMap,
  pruneDead,
  renameTensor,
  sortedNodes,
  stringAttribute,
  subgraphsOf,
  type AttributeValue,
} from "./onnx/graph.js";
export { setBatch, fixDims, type BatchReport } from "./onnx/dims.js";
export {
  embeddingCandidate,
  exposeTensor,
  extractModel,
  splitModel,
  type ExtractOptions,
  type KnownTensors,
  type ModelPart,
  type SplitModel,
} from "./onnx/extract.js";
export {
  externalTensors,
  inlineExternalData,
  type ExternalData,
  type ReadExternal,
} from "./onnx/external.js";
export { modelCost, type KnownShapes, type ModelCost, type OperatorCost } from "./onnx/cost.js";
export { nameNodes } from "./onnx/names.js";
export { stripModel, type StripReport } from "./onnx/strip.js";
export { IR_VERSION_MAX, ONNX_LIMITS, OPSETS_MAX } from "./onnx/limits.js";
export { decodeModel, encodeModel, graphOf, opsetVersion } from "./onnx/model.js";
export {
  boolTensor,
  dataTypeOf,
  elementCount,
  elementTypeOf,
  float32Tensor,
  int32Tensor,
  int64Tensor,
  int8Tensor,
  scalarFloat32Tensor,
  scalarInt8Tensor,
  scalarUint8Tensor,
  tensorDims,
  tensorElementType,
  tensorToFloat32,
  tensorToInt64Numbers,
  uint8Tensor,
} from "./onnx/tensor.js";
export { checkModel, type ModelFacts, type ModelLimits } from "./onnx/check.js";
export { graphSignature, inspectModel, type ForeignTensor, type ModelInspection } from "./onnx/inspect.js";
export { tidyModel, type TidyReport } from "./onnx/tidy.js";
export { upgradeOpset } from "./onnx/upgrade.js";
export { replaceInitializers } from "./onnx/writeback.js";

// Quantizer
export {
  measureSpeed,
  refusalReasons,
  requireWorth,
  type AcceptanceBounds,
  type AccuracyReport,
  type NearBaseReport,
  type QuantizeMethod,
  type SpeedReport,
  type VariantReport,
} from "./quantize/assess.js";
export { readQuantizedBase } from "./quantize/base.js";
export { compareModels, type Comparison, type TensorPair } from "./quantize/compare.js";
export type { ConvertOptions, ConvertResult, LeftNode } from "./quantize/convert.js";
export { quantizeDynamic, type DynamicOptions } from "./quantize/dynamic.js";
export { convertToFloat16, type Float16Options } from "./quantize/fp16.js";
export { INT4_BLOCK_SIZES, quantizeInt4, type Int4Matrix, type Int4Options } from "./quantize/int4.js";
export { countKernels } from "./quantize/kernels.js";
export { QUANTIZE_LIMITS } from "./quantize/limits.js";
export {
  affineParameters,
  roundHalfEven,
  type AffineParameters,
  type QuantizedType,
} from "./quantize/numeric.js";
export type { CalibrationMethod } from "./quantize/observer.js";
export { requireQuality, type QualityBound } from "./quantize/quality.js";
export {
  makeVariant,
  type Evaluation,
  type MadeVariant,
  type MakeVariantOptions,
  type VariantSettings,
} from "./quantize/make.js";
export { searchNearBase } from "./quantize/near-base-search.js";
export { openStaticQuantizer, quantizeStatic, type StaticQuantizer } from "./quantize/quantize.js";
export {
  QUANTIZATION_SCHEMES,
  schemeSettings,
  variantCpuFlags,
  type QuantizationScheme,
  type SchemeSettings,
} from "./quantize/scheme.js";
export {
  searchFloatNodes,
  type SearchOptions,
  type SearchResult,
  type Sensitivity,
} from "./quantize/search.js";
export type {
  Feeds,
  Fidelity,
  FoldModel,
  KernelReport,
  LayerReport,
  OutputReport,
  QuantizationReport,
  QuantizationScales,
  QuantizedBase,
  QuantizeOptions,
  QuantizeProgress,
  QuantizeResult,
} from "./quantize/types.js";

// Frames and pre-processing
export {
  IDENTITY_GEOMETRY,
  type EncodedFrame,
  type Frame,
  type Geometry,
  type PixelFrame,
  type PreparedFrame,
  type RowFrame,
  type RowValue,
  type TensorFrame,
  type WindowFrame,
} from "./input/frame.js";
export { FeatureExtractor } from "./input/features.js";
export { inputExtent } from "./input/extent.js";
export { INPUT_LIMITS } from "./input/limits.js";
export { formatRow, parseRow } from "./input/row.js";
export { sampleFrame } from "./input/sample.js";
export { MAIN_STREAM } from "./input/stream.js";
export { planResize, type ResizePlan } from "./input/geometry.js";
export { PixelPacker } from "./input/pixels.js";
export {
  FramePreparer,
  frameInput,
  zeroFeeds,
  type ImageSizer,
  type SizedPixels,
  type StreamCarry,
} from "./input/prepare.js";
export { windowTensor } from "./input/window.js";

// Heads
export { readAnomaly, type AnomalyHead, type AnomalyReference } from "./heads/anomaly.js";
export { readClassification, type ClassificationHead } from "./heads/classification.js";
export {
  readDetection,
  type DetectionHead,
  type DetectionView,
  type InputSize,
} from "./heads/detection.js";
export {
  argmax,
  binaryEntropy,
  energyOf,
  normalizedEntropy,
  sigmoid,
  softmax,
  topMargin,
} from "./heads/distribution.js";
export { intersectionOverUnion, type Suppression } from "./heads/nms.js";
export { headOutputs, readHeads } from "./heads/read.js";
export { readImage, type ImageHead } from "./heads/image.js";
export { readKeypoints, type KeypointsHead } from "./heads/keypoints.js";
export { readRegression, type RegressionHead } from "./heads/regression.js";
export { readSegmentation, unlabelled, type SegmentationHead } from "./heads/segmentation.js";
export {
  NO_LABEL,
  type AnomalyResult,
  type ClassificationResult,
  type DetectionResult,
  type EmbeddingResult,
  type HeadResult,
  type ImageResult,
  type Keypoint,
  type KeypointsResult,
  type Mask,
  type RegressionResult,
  type SegmentationResult,
} from "./heads/result.js";

// Predictions and signals
export {
  Predictor,
  type BatchItem,
  type DetailedPrediction,
  type Prediction,
  type PredictWithOptions,
  type PredictorOptions,
} from "./predict.js";
export { computeSignals, type SignalContext, type SignalValues } from "./signals/compute.js";
export { SignalTracker } from "./signals/tracker.js";
export { predictionWorth } from "./signals/worth.js";

// How far two versions' answers lie apart
export { disagreement, type Answer } from "./agreement/disagreement.js";
export { MATCH_IOU } from "./agreement/detection.js";
export { IMAGE_TOLERANCE, POINT_TOLERANCE, REGRESSION_TOLERANCE } from "./agreement/values.js";

// Profiles and baselines
export { ProfileAccumulator, type ProfiledPrediction } from "./profile/accumulator.js";
export { decodeBaseline, encodeBaseline, type Baseline, type NoveltyReference } from "./profile/baseline.js";
export { fitNovelty, noveltyOf, type NoveltyOptions } from "./profile/novelty.js";

// Pipelines
export { composeGeometry, cropBox, type Crop } from "./pipeline/crop.js";
export {
  handedOn,
  orderNodes,
  pipelineParts,
  wantedOutputs,
  type PipelinePart,
} from "./pipeline/graph.js";
export { Pipeline, type PipelineOptions } from "./pipeline/pipeline.js";
export type { NodeResult } from "./pipeline/result.js";

// Packages
export { DEFAULT_TOLERANCE, compareGolden, toleranceOf, type Tolerance } from "./package/golden.js";
export {
  MANIFEST_FILE,
  MANIFEST_SCHEMA_MAX,
  formatManifest,
  parseManifest,
} from "./package/manifest.js";
export {
  asFloat32,
  elementCountOf,
  halfToNumber,
  numberToHalf,
  tensorFromBytes,
  tensorToBytes,
} from "./package/tensor-bytes.js";
export { chooseVariant } from "./package/variant.js";

// Import presets
export type { ModelSignature, Preset, PresetOptions, PresetResult } from "./presets/preset.js";
export { PRESETS, PRESET_NAMES, applyPreset, suggestPreset, type PresetName } from "./presets/presets.js";
export { describeModel } from "./presets/boundary.js";
export { COCO_KEYPOINTS, COCO_LABELS, KEYWORD_LABELS, NAMED_LABELS } from "./presets/labels.js";

// Open Inference Protocol v2, apart from any transport
export { checkFeeds, checkFetches, placeholderFeeds } from "./feeds.js";
export type { OipClient, OipRemoteModel, OipRemoteTensor } from "./oip/client.js";
export { OIP_LIMITS } from "./oip/limits.js";
export { isOipProvider, parseOipProvider, type OipEndpoint, type OipTransport } from "./oip/provider-name.js";
export { OipRestClient, type OipHttpTransport } from "./oip/rest-client.js";
export { handleInference, type OipHttpRequest, type OipHttpResponse } from "./oip/rest-server.js";
export type {
  InferenceService,
  OipDatatype,
  OipEncodedInput,
  OipInferRequest,
  OipInferResponse,
  OipModelIndexEntry,
  OipModelMetadata,
  OipServerMetadata,
  OipTensorMetadata,
} from "./oip/service.js";
export { datatypeOf, elementTypeOfDatatype } from "./oip/tensors.js";
