import type { OipInferRequest, OipInferResponse } from "./service.js";

/** What a server says of one tensor; its data type may be one that no tensor here can carry. */
export interface OipRemoteTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
}

export interface OipRemoteModel {
  readonly name: string;
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly OipRemoteTensor[];
  readonly outputs: readonly OipRemoteTensor[];
}

/** A client of the protocol, over HTTP or gRPC. Methods throw `FieldloopError`, see {@link codeOfServer}. */
export interface OipClient {
  serverMetadata(): Promise<{ name: string; version: string; extensions: readonly string[] }>;
  modelReady(model: string, version: string | undefined): Promise<boolean>;
  modelMetadata(model: string, version: string | undefined): Promise<OipRemoteModel>;
  infer(request: OipInferRequest): Promise<OipInferResponse>;
  /** Closes connections; running requests fail. */
  close(): Promise<void>;
}
