/** Limits of the server itself; those of the protocol are `LIMITS` of `@fieldloop/protocol`. */
export const SERVER_LIMITS = {
  httpHeaderBytesMax: 16 * 1024,
  httpHeadersTimeoutMs: 10_000,
  httpRequestTimeoutMs: 300_000,
  httpSocketsMax: 10_000,
  httpRequestsPerSocketMax: 1_000,
  artifactChunkBytes: 256 * 1024,

  /** Files that a delta is made between, and those that one is made for before anybody asks. */
  deltaFileBytesMax: 128 * 1024 * 1024,
  deltaEagerBytesMax: 64 * 1024 * 1024,
  /** A delta above this share of the whole file saves too little. */
  deltaShareMax: 0.8,
  deltaQueueMax: 64,
  deltaTimeoutMs: 300_000,
  /** JavaScript heap of the process that makes one; the two files and the delta come on top. */
  deltaHeapMegabytes: 512,
  deltaCacheBytesMax: 4 * 1024 ** 3,
  deltaPairsMax: 20_000,
  /** A pair that failed (not one that saves too little) is tried again after this. */
  deltaRetryMs: 24 * 3_600_000,
  deltaRetryAfterSeconds: 5,
  deltaUsedEveryMs: 60_000,
  /** Unknown hashes make the server read its manifests at most this often. */
  deltaFilesEveryMs: 1_000,

  liveStreamsMax: 1_000,
  liveStreamsPerPrincipalMax: 10,
  liveQueueMax: 256,
  liveHeartbeatMs: 15_000,
  tapStreamsMax: 8,
  tapQueueBytesMax: 4 * 1024 * 1024,

  idempotencyKeyLengthMax: 128,
  idempotencyBodyBytesMax: 1024 * 1024,
  idempotencyKeptMs: 24 * 3_600_000,
  idempotencyPendingMs: 60_000,

  /** Longer than PostgreSQL keeps the session of a server whose machine died. */
  leaseWaitMs: 20_000,

  apiTokensMax: 1_000,
  sessionTtlMs: 12 * 3_600_000,
  loginAttemptsPerMinute: 5,
  loginAddressesMax: 10_000,
  enrolAttemptsPerMinute: 60,

  /** Connections that wait to be accepted: a fleet that comes back at once. The system may allow fewer. */
  listenBacklog: 4_096,
  brokerSocketsMax: 20_000,
  brokerConnectTimeoutMs: 5_000,
  /** The broker waits for a full socket, and everybody with it. */
  brokerDrainTimeoutMs: 1_000,
  brokerFiltersPerSubscribeMax: 8,
  brokerSubscriptionsPerDeviceMax: 8,
  brokerKeepAliveSecondsMin: 10,
  brokerKeepAliveSecondsMax: 300,
  brokerClientIdLengthMax: 64,
  brokerPacketsInFlightMax: 64,
  brokerMessagesPerSecond: 200,
  brokerMessagesBurst: 2_000,
  brokerBytesPerSecond: 4 * 1024 * 1024,
  brokerBytesBurst: 16 * 1024 * 1024,
  brokerRetainedTopicsMax: 50_000,
  brokerRetainedBytesMax: 16 * 1024,
  brokerOfflineMessagesPerSessionMax: 100,
  brokerOfflineBytesPerSessionMax: 1024 * 1024,

  ingestQueueMessagesMax: 20_000,
  ingestQueueBytesMax: 128 * 1024 * 1024,
  ingestCommitMessagesMax: 2_000,
  /** Rows that one unit of work touches, and those of one device in it: what keeps the others waiting. */
  ingestCommitRowsMax: 20_000,
  ingestCommitDeviceRowsMax: 2_000,
  ingestCommitDelayMs: 3,
  deadLettersMax: 10_000,
  deadLetterBytesMax: 4 * 1024,

  blobBytesMax: 256 * 1024 * 1024,

  /**
   * How long trust metadata (TUF) are good for, and how long before their end they are renewed. The timestamp bounds how long a device
   * can be kept from seeing what is new; root and targets leave time for people to meet at an offline machine.
   */
  trustRootLifetimeMs: 365 * 86_400_000,
  trustRootRenewalMs: 90 * 86_400_000,
  trustTargetsLifetimeMs: 180 * 86_400_000,
  trustTargetsRenewalMs: 60 * 86_400_000,
  trustSnapshotLifetimeMs: 7 * 86_400_000,
  trustSnapshotRenewalMs: 4 * 86_400_000,
  trustTimestampLifetimeMs: 86_400_000,
  trustTimestampRenewalMs: 12 * 3_600_000,
  /** How often the renewal job looks, and how often it says that people are wanted. */
  trustTickMs: 60_000,
  trustReminderMs: 86_400_000,
  /** A signing request that nobody answered. */
  trustRequestKeptMs: 30 * 86_400_000,
  /** Older versions of targets, snapshot and timestamp that are kept for devices that are just reading them. */
  trustVersionsKept: 16,
  /** Publications that one synchronization may need: a request, a root, targets, a renewal, and others of another replica. */
  trustSyncRoundsMax: 16,
  trustSignCommandTimeoutMs: 60_000,
  trustSignCommandOutputBytesMax: 64 * 1024,
  trustKeyFileBytesMax: 64 * 1024,
  /** Cost of opening a key that has a passphrase (scrypt, RFC 7914): 128 MB and about half a second. */
  trustPassphraseCost: 2 ** 17,

  devicesMax: 100_000,
  listItemsMax: 500,
  seriesPointsMax: 2_000,
  recentPredictionsMax: 1_000,

  // Webhooks
  webhooksMax: 50,
  webhookRequestsAtOnce: 16,
  /** Deliveries of one webhook that wait; what comes then is given up at once, and kept. */
  webhookPendingMax: 10_000,
  webhookAnswerBytesMax: 16 * 1024,
  webhookErrorLengthMax: 200,
  /** How long a secret that was replaced signs beside its successor. */
  webhookSecretOverlapMs: 24 * 3_600_000,
  webhookPauseMsMax: 3_600_000,
  /** How often the sender looks by itself. */
  webhookLookMs: 30_000,
  webhookPruneMs: 60_000,
  webhookDeliveredKeptMs: 7 * 86_400_000,
  webhookDeadKeptMs: 30 * 86_400_000,
  /** Of one webhook, delivered and given up together. */
  webhookFinishedKeptMax: 10_000,

  // Shadow
  /** Deployments that one question is about. */
  shadowDeploymentsAtOnce: 500,
} as const;
