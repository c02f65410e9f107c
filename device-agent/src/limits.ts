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
  /** One budget for telemetry, samples and downloads. */
  uplinkBytesPerSecondDefault: 2 * 1024 * 1024,
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

  // Bandwidth
  /** While telemetry and a download both want the link: until the other's turn is looked at again. */
  bandwidthTurnMs: 10,
  /** A changed limit is noticed so soon. */
  bandwidthPollMs: 500,

  // Enrolment and downloads
  enrolTimeoutMs: 20_000,
  enrolResponseBytesMax: LIMITS.rootBytesMax + 64 * 1024,
  downloadStallMs: 20_000,
  /** Tries in a row that bring nothing; tries that bring next to nothing; tries in which the server was too slow. */
  downloadAttemptsMax: 8,
  downloadDripsMax: 64,
  downloadSlowMax: 3,
  downloadProgressBytesMin: 16 * 1024,
  /** Whole files with another hash: the second time the server itself has it, not a proxy. */
  downloadMismatchesMax: 2,
  /** Files that may travel as deltas, and deltas that a device takes: one is in memory while its file is rebuilt. */
  deltaFileBytesMin: 16 * 1024,
  deltaFileBytesMax: 256 * 1024 * 1024,
  deltaBytesMax: 64 * 1024 * 1024,
  /** Until a server says whether it has one, and until it has made it. */
  deltaAskTimeoutMs: 20_000,
  deltaWaitMs: 60_000,
  deltaRebuildTimeoutMs: 5 * 60_000,
  downloadRetryMinMs: 250,
  downloadRetryMaxMs: 15_000,
  /** Slower than that over such a time of waiting for it, a server is left. */
  downloadBytesPerSecondMin: 2 * 1024,
  downloadRateWindowMs: 30_000,
  /** After so many bytes they are made sure of, and the free space is looked at again. */
  downloadCheckBytes: 4 * 1024 * 1024,

  // Update
  /** What a package must leave free on the disk: spool, database of metadata, other programs. */
  storageReserveBytes: 32 * 1024 * 1024,
  /** Work of one state, waiting left out; a download has the time that its bytes take at the least rate besides. */
  offerTimeoutMs: 10 * 60_000,
  downloadTimeoutMs: 10 * 60_000,
  verifyTimeoutMs: 5 * 60_000,
  selfTestTimeoutMs: 180_000,
  /** Beyond its own seconds. */
  shadowTimeoutMs: 30 * 60_000,
  /** A state that waits (window, budget, trust, storage) goes on or ends. */
  waitTimeoutMs: 14 * 24 * 3_600_000,
  /** How often a window that is waited for is looked at: the clock may have been set. */
  windowPollMs: 30_000,
  trustRetryMinMs: 2_000,
  trustRetryMaxMs: 15 * 60_000,
  /** Metadata that does not name a package yet may do so a moment later. */
  trustUnknownTriesMax: 5,
  /** Kept free for a start on a full disk; how often it is looked at whether it is there. */
  diskReserveBytes: 1024 * 1024,
  diskReserveCheckMs: 3_600_000,
  storageRetryMinMs: 1_000,
  storageRetryMaxMs: 60_000,
  /** Of a deployment's loop that ended by something nobody thought of. */
  updaterRetryMs: 10_000,
  /** How often it is looked at whether all deployments are done, before what runs is looked for a better provider. */
  providerRenewalPollMs: 2_000,
  /** Between two looks whether a provider that failed works again: at first, and in the end. */
  providerReturnMinMs: 10_000,
  providerReturnMaxMs: 15 * 60_000,
  /** Trying one execution provider with one variant, and the time after which no further one is tried. */
  probeTimeoutMs: 30_000,
  probesTimeoutMs: 75_000,
  activateTimeoutMs: 120_000,
  /** How long a stop waits for a version that is being loaded: a service manager gives the whole of it half a minute. */
  activationStopMs: 5_000,
  /** A device that stops in the middle of a step this often gives it up; of activation and probation it returns to the version before. */
  waitingStartsMax: 1_000,
  downloadStartsMax: 100,
  verifyStartsMax: 5,
  selfTestStartsMax: 3,
  activationAttemptsMax: 2,
  probationAttemptsMax: 3,
  probationHostCrashesMax: 2,
  probationErrorShareMax: 0.1,
  probationFramesMin: 20,
  /** Times the latency that a package's maker allows for a run: a prediction is made ready and read besides, on a device with other work. */
  probationLatencySlack: 2,
  /** A probation that gets too few predictions ends after this long, or `probationSlack` times its seconds. */
  probationTimeoutMinMs: 10 * 60_000,
  probationSlack: 20,

  /** Hosts that a version is activated in, where something else may have ended the one before. */
  hostActivationsMax: 4,

  // Where a model runs: in the host's own thread or in one of its own (docs/adr/0015)
  /** Below it the two hops between threads cost more than the loop can be kept from its other work, whatever else it has to do. */
  quickRunMsMax: 0.5,
  /**
   * The same where one lane is all that the host serves: its next frame waits for the run in either thread. The hops, 0.3 to 0.9 ms with
   * what a frame and a thread that slept meet cold, are 5 % of such a run.
   */
  loneRunMsMax: 20,
  /**
   * The same where several lanes share the thread, to begin with: at 20 frames a second each they wait less for one another than the way
   * between threads takes. What they really do is looked at so often.
   */
  sharedRunMsMax: 8,
  sharedLookMs: 5_000,
  /** The way to another thread and back at the rates of cameras: both threads slept, and meet what they need cold. */
  betweenThreadsMs: 0.9,
  /** Files up to this size open in some milliseconds, and on so few values no run takes long: tried in the host's own thread at once. */
  quickFileBytesMax: 1024 * 1024,
  quickInputValuesMax: 128 * 1024,
  /** Files up to this size open in at most 50 ms, which the host's own thread can be kept from its other work once. */
  hostFileBytesMax: 4 * 1024 * 1024,
  /** Between the steps of opening, and before the model that it replaces is released: a frame that runs meanwhile meets one at most. */
  openStepPauseMs: 25,

  // Trust
  /** Between two refreshes of the trust metadata; the first is within so long after the start. */
  trustRefreshMs: 6 * 3_600_000,
  trustFirstRefreshMs: 30_000,
  /** Between two refreshes because something was signed by an unknown key. */
  trustRefreshMinMs: 10_000,
  trustAttemptsMax: 4,
  trustStallMs: 20_000,
  /** Slow retrieval: in each window at least this rate, or the transfer ends. Far below what the poorest link gives. */
  trustRateWindowMs: 20_000,
  trustRateBytesPerSecondMin: 256,
  /** An attempt that brings fewer bytes before it is cut counts as one without any. */
  trustProgressBytesMin: 4 * 1024,
  /** A clock is set by small steps all the time. */
  trustClockToleranceMs: 60_000,
  /** The last trusted time is written when it has grown by this much. */
  trustClockStepMs: 10 * 60_000,
  trustGenerationsKept: 2,
  trustFileNameMax: 200,
  trustVersionMax: 2 ** 31 - 1,
  /** Delegated roles that one search for a target may visit; the device's own client visits none. */
  trustDelegationsMax: 32,

  // Shadow
  /** Of one frame on its way to the candidate: no source gives more. */
  shadowMessageBytesMax: 2 * 64 * 1024 * 1024,
  shadowReplyBytesMax: 16 * 1024,
  /** Frames that the candidate has in hand at a time; of one that wants them in a row some may wait. */
  shadowFramesInHandMax: 2,
  shadowSequenceInHandMax: 8,
  shadowBytesInHandMax: 32 * 1024 * 1024,
  /** Seconds of its share that a candidate may save up; one that wants frames in a row spends them on a run of them. */
  shadowBurstSeconds: 1,
  shadowSequenceBurstSeconds: 10,
  /** Frames after a gap that only bring up to date what a candidate carries. */
  shadowWarmFrames: 32,
  /** Candidate's last runs, of which the quarter is taken. */
  shadowRunsRemembered: 256,
  /** Pairs of labels that are counted; the most frequent of them are told. */
  shadowFlipsCounted: 1_024,
  /** Between two events: at first, at most, and as a share of the time that it has taken. */
  shadowIntervalMs: 15_000,
  shadowIntervalMaxMs: 5 * 60_000,
  shadowIntervalShare: 0.05,
  shadowPollMs: 200,
  shadowStopTimeoutMs: 5_000,
  /** A candidate that neither runs nor says anything for so long waits for itself. */
  shadowStillMs: 120_000,
  shadowErrorShareMax: 0.1,
  shadowFramesMin: 20,
  /** A candidate that needs so many times the active version's time, and more than the source leaves for a frame, is too slow. */
  shadowLatencyFactor: 4,
  /** A shadow that gets too few frames ends after this long, or `shadowSlack` times its seconds. */
  shadowTimeoutMinMs: 20 * 60_000,
  shadowSlack: 4,
  /** Starts of the candidate's process; it is started anew with the host, whose end is not its fault. */
  shadowStartsMax: 20,

  // Lanes
  lanesMax: 8,
  laneBatchMax: 64,
  /** Predictions in a row after which a trouble with single frames is over. */
  framesHealthy: 30,
  /** Prediction numbers that a lane reserves at a time: rows of one lane follow on, so that its batches stay large. */
  predictionBlock: 1_024,
  /** A lane that waits gains one level of priority in this time: even the lowest runs after two seconds. */
  laneAgeingMs: 20,
  /** What a lane runs one after the other in one turn, as long as more of it waits. */
  laneTurnMs: 5,

  // Governor
  governorIntervalMs: 1_000,
  /** Degrees Celsius from which it restricts, and below which it restores. */
  governorHotC: 85,
  governorCoolC: 77,
  /** Share of all cores that is busy, from which it restricts lanes below the highest priority, and below which it restores. */
  governorBusyShare: 0.97,
  governorIdleShare: 0.75,
  /** Between two restrictions, and between any change and a restoration. */
  governorHoldMs: 10_000,
  governorRestoreMs: 30_000,
  /** Shares of its rate that a lane is brought down to, one after the other. */
  governorShares: [0.5, 0.25] as readonly number[],
  governorRateMin: 0.5,

  // Host
  /** Above it the host is ended in order and started anew. */
  hostBytesMaxDefault: 1024 * 1024 * 1024,
  /** A host that is above its ceiling right after a start would be restarted for ever: not more often than this, and each time after twice as long. */
  hostRecycleIntervalMs: 60_000,
  hostRecycleIntervalMaxMs: 3_600_000,
  heartbeatIntervalMs: 500,
  heartbeatTimeoutMs: 10_000,
  /** Later than that control was away itself, and the host has as long to say that it is there. */
  absenceMs: 2_000,
  runTimeoutMinMs: 5_000,
  /** Of a model of which it is not known yet how long it takes. */
  runTimeoutFirstMs: 30_000,
  runTimeoutFactor: 10,
  hostStartTimeoutMs: 60_000,
  hostStopTimeoutMs: 10_000,
  /** Whether one execution provider works at all, and what this machine is altogether. */
  providerCheckTimeoutMs: 20_000,
  factsTimeoutMs: 120_000,
  /**
   * A self test has what others leave of the machine. So often it is looked at whether they leave anything: where they kept all cores busy
   * for more than this share of that time, it starts again and has its part of them.
   */
  scratchLookMs: 2_000,
  scratchStarvedShare: 0.9,
  hostRestartMinMs: 200,
  hostRestartMaxMs: 30_000,
  hostHealthyMs: 60_000,
  requestTimeoutMs: 10_000,
  reportIntervalMs: 50,
  reportRowsMax: 500,
  quarantinedFramesMax: 1_024,
  frameQueueMax: 2,
  /** Windows of a signal that wait: what comes in this time, and no more than so many. */
  frameQueueWindowMs: 500,
  frameQueueWindowsMax: 32,
  /** Rows of a table that wait: they take no memory to speak of, and their models next to no time. */
  frameQueueRowsMax: 32,
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
  /** A live stream that gives no byte for so long is opened again. */
  sourceStallMs: 10_000,
  /** Until its first byte: a camera may take a while to wake. */
  sourceFirstByteMs: 20_000,
  sourceConnectTimeoutMs: 10_000,
  /** A trouble with the content of a stream is told at most this often. */
  sourceTroubleIntervalMs: 10_000,
  /** Rows in order after which a trouble with one is over. */
  rowsHealthy: 100,
  rowLineBytesMax: 1024 * 1024,
  rowColumnsMax: 1_024,
  /** Of one window: length × channels. */
  windowValuesMax: 1 << 22,
  followPollMs: 200,
  /** Between two rows that are played by their time. */
  rowPaceWaitMsMax: 60_000,
  tcpSourceConnectionsMax: 8,
  mqttSourcePayloadBytesMax: 4 * 1024 * 1024,
  /** Topics under one filter, each a stream of its own. */
  mqttSourceTopicsMax: 256,

  // Sampler
  /** Frames that came as pixels are stored as JPEG of this quality (1..100), without chroma subsampling. */
  sampleJpegQuality: 92,

  // Local API
  localBodyBytesMax: 256 * 1024,
  localHeadersTimeoutMs: 5_000,
  localRequestTimeoutMs: 15_000,
  /** How often connections beyond these times are looked for; Node's own 30 s would make 5 s of them up to 35. */
  localTimeoutCheckMs: 1_000,
  localConnectionsMax: 64,
  /** Inference requests and answers, and images for `/v1/predict`: they are copied from process to process. */
  localTensorBytesMax: 32 * 1024 * 1024,
  /** Of all such bodies at one time. */
  localBytesInHandMax: 64 * 1024 * 1024,
  /** Inferences that wait for their turn, over all models. */
  localWaitingMax: 16,
  /** Against the lanes' 0..100, of which 50 is the default. */
  localPriority: 40,
  localInferTimeoutMs: 15_000,
  /** A run that takes longer is taken for one that never ends. */
  localRunTimeoutMs: 60_000,
  /** Loaded on demand beside what the lanes run. */
  localModelsMax: 4,
  /** A model in memory against its file on disk: weights, and the working memory of a run. */
  localModelMemoryFactor: 2,
  localSubscribersMax: 8,
  /** Predictions and boxes that wait for one subscriber; beyond it the oldest go. */
  localSubscriberItemsMax: 4_096,
  localSubscriberChunkRows: 256,
  localHeartbeatMs: 15_000,
  feedbackWindowMs: 250,
  feedbackWaitingMax: 10_000,

  // Warnings
  warningsMax: 32,
  commandsRememberedMax: 256,
} as const;

/** Version that presence and state report; the package's own. */
export const AGENT_VERSION = "0.1.0";
