/** Every size, count and time of the protocol, in one table. What exceeds one is refused with a coded error and counted. */
export const LIMITS = {
  cborDepthMax: 8,
  cborItemsMax: 100_000,

  /** Whole MQTT packet before and after CONNECT was accepted. */
  packetBeforeConnectBytesMax: 4 * 1024,
  packetBytesMax: 256 * 1024,
  topicLevelsMax: 8,
  topicBytesMax: 256,

  presenceBytesMax: 1024,
  stateBytesMax: 16 * 1024,
  desiredBytesMax: 16 * 1024,
  commandBytesMax: 4 * 1024,
  ackBytesMax: 1024,
  profileBytesMax: 64 * 1024,
  eventBytesMax: 64 * 1024,
  predictionsBytesMax: 128 * 1024,
  samplePartBytesMax: 128 * 1024,
  sampleMetadataBytesMax: 48 * 1024,
  sampleBytesMax: 16 * 1024 * 1024,
  samplePartsMax: 192,

  /** Rows of one batch of predictions, signals a row, boxes in a batch. */
  batchRowsMax: 2_000,
  batchSignalsMax: 16,
  batchBoxesMax: 8_000,
  /** Largest time between two predictions of one batch, milliseconds: the 16-bit column holds no more. */
  batchGapMsMax: 65_535,
  embeddingLengthMax: 4_096,
  feedbackItemsMax: 1_000,
  /** Pairs of classes that a shadow event tells, the most frequent ones. */
  shadowFlipsMax: 64,
  detectionsMax: 300,

  deviceIdLengthMax: 64,
  modelNameLengthMax: 64,
  labelLengthMax: 128,
  labelsMax: 10_000,
  textLengthMax: 2_000,
  tagsMax: 64,

  pipelineNodesMax: 16,
  manifestBytesMax: 1024 * 1024,
  packageFilesMax: 256,
  packageFileBytesMax: 256 * 1024 * 1024,
  onnxBytesMax: 256 * 1024 * 1024,
  /** Replay or holdout data of a package, inflated. */
  dataFileBytesMax: 64 * 1024 * 1024,
  dataFileItemsMax: 100_000,
  imageBytesMax: 16 * 1024 * 1024,
  imagePixelsMax: 50_000_000,

  jsonBodyBytesMax: 1024 * 1024,

  /** TUF metadata: what a device reads of each role, and how many roots it follows in one go. */
  rootBytesMax: 512 * 1024,
  timestampBytesMax: 16 * 1024,
  snapshotBytesMax: 2 * 1024 * 1024,
  targetsBytesMax: 5 * 1024 * 1024,
  rootRotationsMax: 256,
  trustKeysPerRoleMax: 16,
  /** Characters of a public key in PEM, and of a signature in hexadecimal (RSA of 8,192 bits). */
  trustKeyTextMax: 2_048,
  signatureTextMax: 2_048,
  /** A signing request holds old and new metadata, a file of signatures a few lines. */
  signingRequestBytesMax: 16 * 1024 * 1024,
  directorKeysMax: 8,
  directorBytesMax: 4 * 1024,
  deviceClassesMax: 64,

  rolloutWavesMax: 50,
  /** Devices named in a target, and in a wave or an action. */
  rolloutDevicesMax: 100_000,
  waveDevicesMax: 10_000,
} as const;
