import type { Tensor } from "../backend.js";

/** Data types of the protocol; `BF16` is the one that no tensor here can carry. */
export type OipDatatype =
  | "BOOL"
  | "UINT8"
  | "UINT16"
  | "UINT32"
  | "UINT64"
  | "INT8"
  | "INT16"
  | "INT32"
  | "INT64"
  | "FP16"
  | "FP32"
  | "FP64"
  | "BYTES";

export interface OipServerMetadata {
  readonly name: string;
  readonly version: string;
  /** E.g. `binary_tensor_data`, `model_repository`. */
  readonly extensions: readonly string[];
}

export interface OipTensorMetadata {
  readonly name: string;
  readonly datatype: OipDatatype;
  /** -1 is a size that each request chooses. */
  readonly shape: readonly number[];
}

export interface OipModelMetadata {
  readonly name: string;
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly OipTensorMetadata[];
  readonly outputs: readonly OipTensorMetadata[];
}

export interface OipModelIndexEntry {
  readonly name: string;
  readonly version: string;
  readonly state: "READY" | "UNAVAILABLE" | "LOADING" | "UNLOADING";
  /** Why it is not ready; empty where it is. */
  readonly reason: string;
}

/** A file that a caller gives instead of a tensor: an input of `BYTES` whose parameter `content_type` is an image's. */
export interface OipEncodedInput {
  /** E.g. `image/jpeg`. */
  readonly contentType: string;
  readonly bytes: Uint8Array;
}

export interface OipInferRequest {
  readonly model: string;
  /** Undefined leaves the choice to the service. */
  readonly version: string | undefined;
  /** The caller's own name of the request, given back in the answer. */
  readonly id: string | undefined;
  /** Scalars that the protocol lets a caller add. */
  readonly parameters: Readonly<Record<string, string | number | boolean>>;
  readonly inputs: ReadonlyMap<string, Tensor>;
  /** Inputs that are files; a service that decodes none finds them missing among its tensors. */
  readonly encoded?: ReadonlyMap<string, OipEncodedInput>;
  /** Names of the outputs that are wanted; undefined for all. */
  readonly outputs: readonly string[] | undefined;
}

export interface OipInferResponse {
  readonly model: string;
  readonly version: string;
  readonly parameters?: Readonly<Record<string, string | number | boolean>>;
  readonly outputs: ReadonlyMap<string, Tensor>;
}

/**
 * What a server of the Open Inference Protocol v2 is, apart from how it is reached: {@link handleInference} puts it behind
 * HTTP, `serveGrpc` behind gRPC. Methods throw `FieldloopError`; its code decides the status that a client sees
 * (`not_found` for an unknown model or version, `tensor_invalid`, `unavailable`, …).
 */
export interface InferenceService {
  serverMetadata(): OipServerMetadata;
  /** True where requests are answered; false while starting or stopping. */
  ready(): Promise<boolean>;
  /** Every model that could be asked for, ready or not. */
  models(): Promise<readonly OipModelIndexEntry[]>;
  modelReady(model: string, version: string | undefined): Promise<boolean>;
  modelMetadata(model: string, version: string | undefined): Promise<OipModelMetadata>;
  /** Makes a model of the repository ready. */
  load(model: string): Promise<void>;
  unload(model: string): Promise<void>;
  infer(request: OipInferRequest, signal?: AbortSignal): Promise<OipInferResponse>;
}
