/** Sizes of one request or answer of the Open Inference Protocol, on both sides. */
export const OIP_LIMITS = {
  /** Body of an inference: JSON, or JSON and raw tensors. */
  bodyBytesMax: 256 * 1024 * 1024,
  /** The JSON part where raw tensors follow it. */
  headerBytesMax: 1024 * 1024,
  /** JSON alone: `{},` is three bytes there and sixty in memory, so a larger text could end the process. */
  jsonBytesMax: 32 * 1024 * 1024,
  /** Elements of one tensor in JSON, or texts in any form: each costs tens of bytes in memory. */
  jsonElementsMax: 4_000_000,
  /** Bodies that one HTTP server holds at a time, all connections together. */
  bodiesBytesMax: 512 * 1024 * 1024,
  /** Fields of one gRPC message: each becomes an object. */
  wireFieldsMax: 1_000_000,
  tensorsMax: 256,
  rankMax: 32,
  nameLengthMax: 512,
  /** One text of a tensor of texts. */
  textBytesMax: 16 * 1024 * 1024,
  /** Answers of metadata and repository calls. */
  metadataBytesMax: 4 * 1024 * 1024,
  modelsMax: 10_000,
  requestTimeoutMs: 30_000,
} as const;
