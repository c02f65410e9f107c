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
  makeNode,
  namesRead,
  nodeProducing,
  producerMap,
  pruneDead,
  renameTensor,
  sortedNodes,
  stringAttribute,
  subgraphsOf,
  type AttributeValue,
} from "./onnx/graph.js";
export { ONNX_LIMITS } from "./onnx/limits.js";
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
  scalarInt32Tensor,
  scalarInt64Tensor,
  scalarInt8Tensor,
  scalarUint8Tensor,
  tensorDims,
  tensorElementType,
  tensorToFloat32,
  tensorToInt64Numbers,
  uint8Tensor,
} from "./onnx/tensor.js";
export { checkModel, type ModelFacts, type ModelLimits } from "./onnx/check.js";
export { graphSignature, inspectModel, type ModelInspection } from "./onnx/inspect.js";
export { tidyModel, type TidyReport } from "./onnx/tidy.js";
export { UPGRADE_OPSET_MIN, UPGRADE_OPSET_TARGET, upgradeOpset } from "./onnx/upgrade.js";
export { replaceInitializers } from "./onnx/writeback.js";

// Quantizer
export { readQuantizedBase, type QuantizedBase } from "./quantize/base.js";
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
export { quantizeStatic } from "./quantize/quantize.js";
export type {
  Feeds,
  Fidelity,
  FoldModel,
  KernelReport,
  LayerReport,
  OutputReport,
  QuantizationReport,
  QuantizationScales,
  QuantizeOptions,
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
  type TensorFrame,
  type WindowFrame,
} from "./input/frame.js";
export { planResize, type ResizePlan } from "./input/geometry.js";
export { PixelPacker } from "./input/pixels.js";
export { FramePreparer, zeroFeeds, type ImageSizer, type SizedPixels } from "./input/prepare.js";
export { windowDims, windowTensor } from "./input/window.js";

// Heads
export { ANOMALY_STEEPNESS, anomalyProbability, readAnomaly, type AnomalyHead } from "./heads/anomaly.js";
export { readClassification, type ClassificationHead } from "./heads/classification.js";
export { readDetection, type DetectionHead } from "./heads/detection.js";
export {
  argmax,
  binaryEntropy,
  energyOf,
  normalizedEntropy,
  sigmoid,
  softmax,
  topMargin,
} from "./heads/distribution.js";
export { intersectionOverUnion, suppressOverlaps } from "./heads/nms.js";
export { headOutputs, readHeads } from "./heads/read.js";
export {
  NO_LABEL,
  type AnomalyResult,
  type ClassificationResult,
  type DetectionResult,
  type EmbeddingResult,
  type HeadResult,
} from "./heads/result.js";

// Predictions and signals
export { Predictor, type Prediction, type PredictorOptions } from "./predict.js";
export { computeSignals, type SignalContext, type SignalValues } from "./signals/compute.js";
export { INSTABILITY_WINDOW, SignalTracker } from "./signals/tracker.js";
export { predictionWorth } from "./signals/worth.js";

// Profiles and baselines
export { ProfileAccumulator, histogramBin, type ProfiledPrediction } from "./profile/accumulator.js";
export { decodeBaseline, encodeBaseline, type Baseline, type NoveltyReference } from "./profile/baseline.js";
export { fitNovelty, noveltyOf, unitVector, type NoveltyOptions } from "./profile/novelty.js";

// Packages
export { DEFAULT_TOLERANCE, compareGolden, toleranceOf, type Tolerance } from "./package/golden.js";
export { MANIFEST_FILE, formatManifest, parseManifest } from "./package/manifest.js";
export {
  asFloat32,
  elementCountOf,
  halfToNumber,
  tensorFromBytes,
  tensorToBytes,
} from "./package/tensor-bytes.js";
export { INT8_CPU_FLAGS, chooseVariant } from "./package/variant.js";

// Import presets
export type { ModelSignature, Preset, PresetOptions, PresetResult } from "./presets/preset.js";
export { PRESETS, PRESET_NAMES, applyPreset, type PresetName } from "./presets/presets.js";
