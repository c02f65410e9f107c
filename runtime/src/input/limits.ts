/** Every size and count of inputs and streams. */
export const INPUT_LIMITS = {
  /** Streams whose state a predictor keeps; the one that was silent longest is forgotten first. */
  streamsMax: 64,
  /** Frames of one call of `predictBatch`. */
  batchFramesMax: 256,
  /** Values of one input, and of all inputs of a package together: a manifest that wants more is refused before memory is taken. */
  elementsMax: 1 << 26,
  /** Values of the frames that are stacked for one run; a single frame may have more. */
  batchElementsMax: 1 << 24,
  /** Frames of a window times their FFT length: what one window of sound may cost. */
  transformedSamplesMax: 1 << 26,
  /** A row as JSON. */
  rowBytesMax: 1024 * 1024,
  rowColumnsMax: 1_024,
} as const;
