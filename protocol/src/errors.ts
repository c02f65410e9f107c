/**
 * The one table of error codes. A code is never reused for another meaning; `status` is what the HTTP API answers with.
 * `docs/errors.md` is generated from it.
 */
export const ERROR_CODES = {
  // Anything
  internal: { status: 500, title: "Something failed that should not have" },
  cancelled: { status: 409, title: "The work was cancelled" },
  timed_out: { status: 504, title: "The work took longer than its limit" },
  limit_exceeded: { status: 413, title: "A named limit was exceeded" },
  invalid_argument: { status: 400, title: "An argument or option is not acceptable" },
  invalid_body: { status: 400, title: "The request body does not match its schema" },
  not_found: { status: 404, title: "No such thing" },
  conflict: { status: 409, title: "The state does not allow this" },
  already_exists: { status: 409, title: "It exists already" },
  unauthenticated: { status: 401, title: "Missing or unknown credential" },
  forbidden: { status: 403, title: "The credential does not allow this" },
  rate_limited: { status: 429, title: "Too many requests" },
  unavailable: { status: 503, title: "Not able to serve now; try again later" },
  unsupported_media_type: { status: 415, title: "The body has a type that is not accepted" },

  // Codec and messages
  cbor_truncated: { status: 400, title: "CBOR ends in the middle of an item" },
  cbor_trailing_bytes: { status: 400, title: "CBOR has bytes after the item" },
  cbor_indefinite_length: { status: 400, title: "CBOR uses an indefinite length" },
  cbor_duplicate_key: { status: 400, title: "A CBOR map has the same key twice" },
  cbor_key_type: { status: 400, title: "A CBOR map key is not text or a small integer" },
  cbor_tag_refused: { status: 400, title: "A CBOR tag is not on the allowlist" },
  cbor_too_deep: { status: 400, title: "CBOR is nested deeper than the limit" },
  cbor_too_many_items: { status: 400, title: "CBOR holds more items than the limit" },
  cbor_malformed: { status: 400, title: "Not well-formed CBOR of the accepted subset" },
  message_schema: { status: 400, title: "A message does not match its schema" },
  message_too_large: { status: 413, title: "A message exceeds its size limit" },
  batch_malformed: { status: 400, title: "The columns of a batch contradict its header" },
  topic_malformed: { status: 400, title: "Not a topic of this protocol" },
  topic_forbidden: { status: 403, title: "The device may not use this topic" },
  boot_superseded: { status: 409, title: "A newer boot of this device was already seen" },

  // Manifests, packages, models
  manifest_invalid: { status: 400, title: "The manifest does not match its schema" },
  manifest_name_invalid: { status: 400, title: "A file name in the manifest is not allowed" },
  package_file_missing: { status: 400, title: "A file of the package is missing" },
  package_file_unexpected: {
    status: 400,
    title: "The package folder holds a file that its manifest does not name",
  },
  package_hash_mismatch: {
    status: 400,
    title: "A file of the package has another hash than its manifest says",
  },
  package_size_mismatch: {
    status: 400,
    title: "A file of the package has another size than its manifest says",
  },
  package_link_refused: { status: 400, title: "A file of the package is a link" },
  package_signature_invalid: { status: 400, title: "The signature does not fit" },
  package_signature_unknown_key: { status: 400, title: "Signed with a key that is not trusted" },
  package_incompatible: { status: 409, title: "The package does not fit this device" },
  data_file_malformed: { status: 400, title: "A data file of the package is not readable" },
  golden_case_failed: { status: 409, title: "A golden case gave another result than expected" },
  onnx_malformed: { status: 400, title: "Not a readable ONNX file" },
  onnx_external_data: { status: 400, title: "The ONNX file refers to external data outside its package" },
  onnx_unknown_domain: { status: 400, title: "The ONNX file uses an operator domain that is not allowed" },
  onnx_too_large: { status: 413, title: "The ONNX file exceeds a size limit" },
  onnx_too_deep: { status: 400, title: "The ONNX file nests graphs deeper than the limit" },
  onnx_unsupported: {
    status: 400,
    title: "The ONNX file uses something that this operation does not support",
  },
  model_load_failed: { status: 400, title: "The model could not be opened" },
  model_run_failed: { status: 500, title: "The model failed while running" },
  tensor_invalid: {
    status: 400,
    title: "A tensor does not fit the model's input, or an output was asked for that it lacks",
  },
  model_output_invalid: { status: 500, title: "The model gave an output that its head cannot read" },
  provider_unavailable: { status: 409, title: "The execution provider is not available here" },
  preset_unknown: { status: 400, title: "No such import preset" },
  quantization_rejected: { status: 409, title: "The quantized model is worse than its bound" },

  // Deltas
  delta_malformed: { status: 400, title: "Not a readable delta" },
  delta_base_mismatch: { status: 409, title: "The delta is for another base file" },

  // Inputs
  image_undecodable: { status: 400, title: "The image could not be decoded" },
  image_too_large: { status: 413, title: "The image exceeds the pixel or byte limit" },
  image_type_refused: { status: 415, title: "The image has a type that is not accepted" },
  window_invalid: { status: 400, title: "The sensor window does not fit the declared input" },
  row_malformed: { status: 400, title: "A row or message of a sensor stream could not be read" },
  row_invalid: { status: 400, title: "The row of a table does not fit the declared columns" },
  source_failed: { status: 500, title: "A source could not deliver frames" },
  source_unknown: { status: 400, title: "No such source" },

  // Training
  training_unsupported_op: { status: 400, title: "The training engine has no gradient for an operator" },
  training_diverged: { status: 500, title: "Training gave a loss that is not finite" },
  training_no_labels: { status: 409, title: "Too few labels to train on" },

  // Device
  enrolment_refused: { status: 403, title: "The enrolment token is unknown, used or expired" },
  device_suspended: { status: 403, title: "The device is suspended" },
  identity_conflict: { status: 409, title: "Two agents use the identity of one device" },
  desired_rollback_refused: { status: 409, title: "A desired state older than the applied one was refused" },
  desired_signature_invalid: { status: 400, title: "The desired state is not signed by the fleet" },
  download_failed: { status: 502, title: "The download could not be completed" },
  download_length_mismatch: { status: 502, title: "The download is longer or shorter than announced" },
  download_too_slow: { status: 504, title: "The download was slower than the least rate, time after time" },
  device_class_mismatch: { status: 409, title: "The package is not for devices of this class" },
  returned_locally: { status: 409, title: "Somebody had the device return to the version before" },
  storage_full: { status: 507, title: "No space left within the budget" },
  storage_failed: { status: 500, title: "The disk refused a write" },
  spool_corrupt: { status: 500, title: "A spool segment failed its checksum" },
  host_crashed: { status: 500, title: "The inference host died" },
  host_unresponsive: { status: 500, title: "The inference host stopped answering and was killed" },
  frame_quarantined: {
    status: 409,
    title: "A frame that killed the inference host before was not run again",
  },
  host_memory_exceeded: {
    status: 500,
    title: "The inference host exceeded its memory ceiling and was started anew",
  },
  provider_failed: { status: 500, title: "An execution provider failed and another one took over" },
  device_hot: { status: 503, title: "The device is hot: frame rates or variants were lowered" },
  device_overloaded: {
    status: 503,
    title: "The device is overloaded: lanes of low priority were slowed down",
  },
  lane_unknown: { status: 409, title: "The device has no lane that could run this" },
  self_test_failed: { status: 409, title: "The self test failed on this device" },
  shadow_failed: { status: 409, title: "The candidate misbehaved in shadow" },
  probation_failed: { status: 409, title: "The new version misbehaved during probation" },
  prediction_unknown: { status: 404, title: "No such recent prediction" },

  // Trust (TUF)
  trust_signature_insufficient: {
    status: 400,
    title: "Trust metadata are not signed by enough of the keys of their role",
  },
  trust_metadata_expired: { status: 409, title: "Trust metadata have expired" },
  trust_rollback_refused: { status: 409, title: "Trust metadata older than known ones were refused" },
  trust_metadata_mixed: { status: 409, title: "Trust metadata contradict each other" },
  trust_metadata_malformed: { status: 400, title: "Trust metadata are not readable" },
  trust_metadata_too_large: { status: 413, title: "Trust metadata exceed their size limit" },
  trust_unreachable: { status: 502, title: "Trust metadata could not be fetched" },
  trust_clock_back: { status: 409, title: "The clock stands before the last time known" },
  trust_target_unknown: { status: 404, title: "The trust metadata do not name such a target" },
  trust_target_mismatch: { status: 409, title: "A target has another content than the trust metadata say" },
  trust_key_unavailable: { status: 409, title: "A signing key cannot be used here" },
  trust_request_stale: { status: 409, title: "The signing request was overtaken or withdrawn" },
  version_awaiting_signature: { status: 409, title: "The version is not signed by the targets keys yet" },

  // Fleet
  database_in_use: { status: 409, title: "Another server works in the data folder or on the database" },
  secret_key_missing: { status: 500, title: "The key of a stored secret is not in the data folder" },
  rollout_needs_evidence: { status: 409, title: "The version has no passing evaluation" },
  idempotency_conflict: { status: 409, title: "The idempotency key was used for another request" },
  precondition_failed: { status: 412, title: "The resource changed meanwhile" },
} as const satisfies Record<string, { status: number; title: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** The one error class: `message` is safe for people, `cause` and `detail` are for logs; secrets in neither. */
export class FieldloopError extends Error {
  override readonly name = "FieldloopError";
  readonly code: ErrorCode;
  readonly detail: Readonly<Record<string, unknown>> | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; detail?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.detail = options.detail;
  }

  get status(): number {
    return ERROR_CODES[this.code].status;
  }
}

/** Narrows anything thrown to a coded error; what carries no code becomes `internal`. */
export function toFieldloopError(error: unknown): FieldloopError {
  if (error instanceof FieldloopError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new FieldloopError("internal", message, { cause: error });
}
