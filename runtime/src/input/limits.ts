/** Every size and count of inputs and streams. */
export const INPUT_LIMITS = {
  /** Streams whose state a predictor keeps; the one that was silent longest is forgotten first. */
  streamsMax: 64,
  /** Frames of one call of `predictBatch`. */
  batchFramesMax: 256,
  /** Values of one input that is filled in or warmed: a manifest that wants more is refused before memory is taken. */
  elementsMax: 1 << 26,
} as const;
