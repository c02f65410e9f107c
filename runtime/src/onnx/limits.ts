/** Limits on ONNX files; a device class may pass larger ones to `checkModel`, nothing passes by without one. */
export const ONNX_LIMITS = {
  /** Whole file. The protobuf format itself ends at 2 GiB. */
  modelBytesMax: 256 * 1024 * 1024,
  /** Nodes over all graphs: 200,000 chained Relu take ONNX Runtime 12 s to load. */
  nodeCountMax: 20_000,
  /** Graphs inside graphs (bodies of If, Loop, Scan); a voice detector exported from TorchScript has 4. */
  subgraphDepthMax: 8,
  /** Protobuf messages inside messages; a graph at the deepest allowed level needs 35. */
  messageDepthMax: 48,
  /** Fields on the wire over the whole file: bounds the objects that decoding allocates. */
  wireFieldsMax: 2_000_000,
  /** Numbers held in typed fields (`float_data`, `int64_data`) in place of raw bytes: each becomes a JS value. */
  typedElementsMax: 32 * 1024 * 1024,
  /** Elements that one tensor may claim. */
  tensorElementsMax: 2 ** 31,
  /** Local functions that call local functions. */
  functionDepthMax: 16,
  /** Length of one name, in UTF-16 units. */
  nameLengthMax: 1024,
} as const;

/** Newest operator sets that the bundled engine (ONNX Runtime 1.30) accepts; a domain that is absent has no bound. */
export const OPSETS_MAX: Readonly<Record<string, number>> = { "": 26, "ai.onnx.ml": 5 };
/** Newest version of the file format that it accepts: 14 is refused with a message of its own. */
export const IR_VERSION_MAX = 13;
