import { LIMITS } from "@fieldloop/protocol";

/** Every size, count and time of the agent that the protocol does not fix already. */
export const AGENT_LIMITS = {
  // Spool
  spoolBytesMaxDefault: 256 * 1024 * 1024,
  spoolSegmentBytesMax: 1024 * 1024,
  spoolRecordBytesMax: LIMITS.packetBytesMax,
  /** Appended and not yet on disk; beyond it only protected records are taken. */
  spoolPendingBytesMax: 8 * 1024 * 1024,
  spoolFlushIntervalMs: 100,
  spoolRetryMs: 2_000,
  /** An eviction frees down to this share of the budget, so that it is rare. */
  spoolEvictionTarget: 0.9,
  spoolCursorIntervalMs: 5_000,

  // Uplink
  uplinkBytesPerSecondDefault: 256 * 1024,
  uplinkBurstSeconds: 4,
  keepAliveSeconds: 20,
  connectTimeoutMs: 10_000,
  reconnectMinMs: 500,
  reconnectMaxMs: 30_000,
  /** After a refused credential. */
  reconnectRefusedMs: 60_000,
  publishesInFlightMax: 16,
  windowRecords: { event: 32, profile: 8, predictions: 32, sample: 8 },
  ackTimeoutMs: 5_000,
  ackTimeoutMaxMs: 60_000,
  stateIntervalMs: 30_000,
  stateMinIntervalMs: 250,

  // Enrolment and downloads
  enrolTimeoutMs: 20_000,
  enrolResponseBytesMax: 64 * 1024,
  downloadStallMs: 20_000,
  downloadAttemptsMax: 8,
  downloadRetryMinMs: 250,
  downloadRetryMaxMs: 15_000,
  downloadTimeoutMs: 30 * 60_000,
  verifyTimeoutMs: 60_000,
  selfTestTimeoutMs: 120_000,
  activateTimeoutMs: 120_000,
  /** A device that stops in the middle of activation or probation this often returns to the version before. */
  activationAttemptsMax: 2,
  probationAttemptsMax: 3,
  probationHostCrashesMax: 2,
  probationErrorShareMax: 0.1,
  probationFramesMin: 20,
  /** A probation that gets too few predictions ends after this long, or `probationSlack` times its seconds. */
  probationTimeoutMinMs: 10 * 60_000,
  probationSlack: 20,

  // Host
  heartbeatIntervalMs: 500,
  heartbeatTimeoutMs: 10_000,
  runTimeoutMinMs: 5_000,
  runTimeoutFactor: 10,
  hostStartTimeoutMs: 60_000,
  hostStopTimeoutMs: 10_000,
  hostRestartMinMs: 200,
  hostRestartMaxMs: 30_000,
  hostHealthyMs: 60_000,
  requestTimeoutMs: 10_000,
  reportIntervalMs: 50,
  reportRowsMax: 500,
  quarantinedFramesMax: 1_024,
  frameQueueMax: 2,
  /** While a model is loaded beside the running one the processor is busy: these frames wait instead of being dropped. */
  frameQueueSwapMax: 128,
  frameQueueBytesMax: 64 * 1024 * 1024,
  /** How long afterwards the frames that waited may be caught up on. */
  frameCatchUpMs: 10_000,

  // Sources
  pushBodyBytesMax: LIMITS.imageBytesMax,
  pushRequestsMax: 8,
  folderFilesMax: 1_000_000,
  videoFrameBytesMax: 64 * 1024 * 1024,
  simulatorTruthsMax: 32_768,
  simulatorFeedbackIntervalMs: 2_000,
  sourceRestartMinMs: 500,
  sourceRestartMaxMs: 30_000,

  // Sampler
  /** Frames that came as pixels are stored as JPEG of this quality (1..100), without chroma subsampling. */
  sampleJpegQuality: 92,

  // Local API
  localBodyBytesMax: 256 * 1024,
  localHeadersTimeoutMs: 5_000,
  localRequestTimeoutMs: 15_000,
  localConnectionsMax: 64,
  feedbackWindowMs: 250,
  feedbackWaitingMax: 10_000,

  // Warnings
  warningsMax: 32,
  commandsRememberedMax: 256,
} as const;

/** Version that presence and state report; the package's own. */
export const AGENT_VERSION = "0.1.0";
