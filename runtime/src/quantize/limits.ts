/** Limits of quantization. */
export const QUANTIZE_LIMITS = {
  /** Calibration batches read; more change ranges no further. */
  calibrationBatchesMax: 10_000,
  /** Batches kept to compare layers, and the bytes they may hold together. */
  comparedBatchesMax: 16,
  comparedBytesMax: 64 * 1024 * 1024,
} as const;
