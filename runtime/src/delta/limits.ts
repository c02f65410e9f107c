/** Limits of deltas between two files; the maker keeps to them, the reader refuses what does not. */
export const DELTA_LIMITS = {
  /** Of base and target. */
  fileBytesMax: 256 * 1024 * 1024,
  /** Of a delta; one that is larger saves nothing worth having. */
  deltaBytesMax: 128 * 1024 * 1024,
  /** Pieces that a target is put together from: each may cost the reader a read of its own. */
  operationsMax: 400_000,
  /** Rows of one tensor that may have a slope of their own. */
  slopeRowsMax: 65_536,
  /** Columns of one tensor that the reader remembers how much they changed. */
  columnsMax: 1 << 20,
  /** Bytes that the reader works on at a time. */
  chunkBytes: 64 * 1024,
  /** Bytes of the base that the maker can find again by their content, and how often one position is looked up. */
  indexedBytesMax: 32 * 1024 * 1024,
  matchTriesMax: 12,
  /** Shortest piece of the base that is worth copying. */
  matchBytesMin: 16,
  /** Tensors smaller than this are not compared number by number. */
  tensorBytesMin: 32,
} as const;
