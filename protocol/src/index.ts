export { ERROR_CODES, FieldloopError, toFieldloopError, type ErrorCode } from "./errors.js";
export { LIMITS } from "./limits.js";
export {
  DEVICE_ID_PATTERN,
  DOWN_KINDS,
  PROTOCOL_VERSION,
  RETAINED_KINDS,
  UP_FILTER,
  UP_KINDS,
  downTopic,
  isDeviceId,
  parseTopic,
  upTopic,
  type DownKind,
  type ParsedTopic,
  type UpKind,
} from "./topics.js";
export { decodeCbor, encodeCbor, type CborLimits, type CborTypedArray, type CborValue } from "./cbor.js";
export {
  CONFIDENCE_SCALE,
  LATENCY_SCALE,
  DISAGREES_FROM,
  SIGNALS,
  SIGNAL_NAMES,
  dequantize,
  quantize,
  signalNameById,
  type ColumnScale,
  type SignalDefinition,
  type SignalName,
} from "./signals.js";
export {
  countSchema,
  deviceIdSchema,
  formatModelVersion,
  formatPredictionId,
  labelSchema,
  modelNameSchema,
  parsePredictionId,
  sha256Schema,
  textSchema,
  timeSchema,
  versionSchema,
} from "./names.js";
export { decodeDataFile, encodeDataFile, type DataItem } from "./data-file.js";
export { ELEMENT_TYPES, tensorNameSchema, type Affine } from "./manifest/tensors.js";
export { fileNameSchema, fileSchema, type PackageFile } from "./manifest/files.js";
export {
  featuresSchema,
  inputSchema,
  type ColumnEncoding,
  type ConstantInput,
  type ImageInput,
  type ModelInput,
  type StateInput,
  type TableInput,
  type TensorInput,
  type WindowFeatures,
  type WindowInput,
} from "./manifest/inputs.js";
export {
  DETECTION_FORMATS,
  headSchema,
  type Anchors,
  type Head,
} from "./manifest/heads.js";
export { ROOT_NODE, decidingHead, decidingHeadOf, type DecidingHead } from "./manifest/deciding.js";
export {
  PRECISIONS,
  TASKS,
  goldenCaseSchema,
  lineageSchema,
  manifestFiles,
  manifestSchema,
  variantSchema,
  type GoldenCase,
  type Lineage,
  type Manifest,
  type ManifestInput,
  type NodeCondition,
  type NodeSource,
  type PipelineNode,
  type Precision,
  type Task,
  type Variant,
} from "./manifest/manifest.js";
export { pipelineSpecSchema, type PipelineSpec } from "./manifest/pipeline-spec.js";
export {
  DEPLOYMENT,
  DEPLOYMENT_STATES,
  FAILURE_STATUSES,
  ROLLOUT,
  ROLLOUT_STATES,
  TRAINING,
  TRAINING_STATES,
  WAVE,
  WAVE_STATES,
  canTransition,
  isFinal,
  type DeploymentState,
  type FailureStatus,
  type RolloutState,
  type StateMachine,
  type TrainingState,
  type WaveState,
} from "./states.js";
export {
  createSigningKey,
  fromHex,
  keyIdOf,
  sha256Hex,
  sign,
  toHex,
  verify,
  type Envelope,
  type PublicKey,
  type SigningKey,
} from "./signing.js";
export {
  STREAMS,
  judgeDelivery,
  type Delivery,
  type DeliveryVerdict,
  type Stream,
} from "./messages/delivery.js";
export { decodeAck, encodeAck, type Ack } from "./messages/ack.js";
export {
  decodePredictions,
  encodePredictions,
  predictionRow,
  type Box,
  type PredictionBatch,
  type PredictionColumns,
  type PredictionRow,
  type VersionRef,
} from "./messages/predictions.js";
export {
  HISTOGRAM_BINS,
  emptyStatistics,
  histogramSchema,
  mergeStatistics,
  profileSchema,
  profileStatisticsSchema,
  type Profile,
  type ProfileStatistics,
} from "./messages/profile.js";
export {
  MEDIA_TYPES,
  STRATA,
  sampleContextSchema,
  sampleMetadataSchema,
  sampleSchema,
  type MediaType,
  type SampleContext,
  type SampleMessage,
  type SampleMetadata,
  type Stratum,
} from "./messages/sample.js";
export {
  SEVERITIES,
  errorCodeSchema,
  eventDataSchema,
  eventSchema,
  wireErrorSchema,
  type EventData,
  type EventMessage,
  type ShadowEvent,
  type WireError,
} from "./messages/event.js";
export { presenceSchema, type Presence } from "./messages/presence.js";
export {
  factsSchema,
  runningSchema,
  stateSchema,
  type DeviceState,
  type LaneState,
  laneStateSchema,
  type Facts,
} from "./messages/state.js";
export {
  COMMAND_TYPE,
  DESIRED_TYPE,
  PACKAGE_TYPE,
  MAIN_LANE,
  assignmentSchema,
  laneNameSchema,
  commandSchema,
  desiredSchema,
  packageStatementSchema,
  samplingPolicySchema,
  type Assignment,
  type Command,
  type Desired,
  type PackageStatement,
  type SamplingPolicy,
} from "./messages/desired.js";
export { MESSAGES, decodeMessage, encodeMessage, type Message, type MessageName } from "./messages/codec.js";
export {
  ROLES,
  pageSchema,
  problemSchema,
  proportionSchema,
  type Page,
  type Problem,
  type Proportion,
  type Role,
} from "./api/common.js";
export {
  deviceDetailSchema,
  deviceSummarySchema,
  enrolRequestSchema,
  enrolResponseSchema,
  enrolmentTokenRequestSchema,
  enrolmentTokenSchema,
  groupSchema,
  predictionViewSchema,
  seriesPointSchema,
  tagsSchema,
  type DeviceDetail,
  type DeviceSummary,
  type EnrolRequest,
  type EnrolResponse,
  type Group,
  type PredictionView,
  type SeriesPoint,
} from "./api/devices.js";
export {
  datasetSchema,
  evaluationResultSchema,
  evaluationSchema,
  modelSchema,
  modelVersionSchema,
  snapshotSchema,
  trainingRunRequestSchema,
  trainingRunSchema,
  trainingSettingsSchema,
  type Dataset,
  type Evaluation,
  type EvaluationResult,
  type Model,
  type ModelVersion,
  type Snapshot,
  type TrainingRun,
  type TrainingSettings,
} from "./api/models.js";
export {
  annotationRequestSchema,
  annotationSchema,
  sampleQuerySchema,
  sampleStatusRequestSchema,
  sampleViewSchema,
  type Annotation,
  type SampleQuery,
  type SampleView,
} from "./api/samples.js";
export {
  shadowCountsSchema,
  shadowLabelledSchema,
  shadowViewSchema,
  type ShadowCounts,
  type ShadowView,
} from "./api/shadow.js";
export {
  gateSettingsSchema,
  gateVerdictSchema,
  rolloutActionSchema,
  rolloutRequestSchema,
  rolloutViewSchema,
  waveViewSchema,
  type GateSettings,
  type GateVerdict,
  type RolloutRequest,
  type RolloutView,
  type WaveView,
} from "./api/rollouts.js";
export {
  LIVE_TYPES,
  liveEventSchema,
  overviewSchema,
  sessionSchema,
  type LiveEvent,
  type Overview,
} from "./api/live.js";
export { protocolReference } from "./reference.js";
