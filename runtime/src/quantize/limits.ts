/** Limits of quantization. */
export const QUANTIZE_LIMITS = {
  /** Calibration batches read; more change ranges no further. */
  calibrationBatchesMax: 10_000,
  /** Batches kept to compare layers, and the bytes they may hold together. */
  comparedBatchesMax: 16,
  comparedBytesMax: 64 * 1024 * 1024,
  /** Of those, batches on which a model is compared whose activations need several groups: each costs a run a group. */
  comparedBatchesGrouped: 2,
  /**
   * Activations of one batch that are in memory together while calibrating or comparing. A model with more is run several
   * times a batch, some tensors at a time.
   */
  activationBytesMax: 96 * 1024 * 1024,
  /** Groups of tensors that are observed in turn; each is a session of its own with the model's weights. */
  activationGroupsMax: 12,
  /** What a percentile or entropy calibration remembers of one tensor, however many values it sees. */
  histogramBytesPerTensor: 64 * 1024,
  /** Columns of a weight whose inputs' covariances are gathered together, and what all of a network's may take; see `blockLengthFor`. */
  covarianceColumnsMax: 256,
  covarianceBytesMax: 256 * 1024 * 1024,
  /** Models made and judged by one search for the nodes to leave in float. */
  searchEvaluationsMax: 64,
} as const;
