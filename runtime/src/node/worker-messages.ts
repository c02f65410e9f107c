import {
  FieldloopError,
  toFieldloopError,
  type ErrorCode,
  type Manifest,
  type Variant,
} from "@fieldloop/protocol";
import type { Tensor, TensorInfo } from "../backend.js";
import type { Frame } from "../input/frame.js";
import type { BatchItem, Prediction } from "../predict.js";
import type { OpenModelOptions } from "./model.js";

/** What crosses to the worker: everything of {@link OpenModelOptions} that can be cloned. */
export type WorkerModelOptions = Omit<OpenModelOptions, "now"> & {
  /** See `OpenPackageOptions`. */
  readonly verifyFiles?: boolean;
};

/** What the host learns of a model that a worker opened. */
export interface LoadedInfo {
  readonly manifest: Manifest;
  readonly variant: Variant;
  readonly executionProvider: string;
  readonly packageSha256: string;
  /** Of the graph itself (the root's, in a pipeline). */
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** What a warm run of all its graphs took, in milliseconds; undefined where nobody knows. */
  readonly warmRunMs: number | undefined;
}

export type WorkerRequest =
  | { kind: "load"; slot: string; packageDir: string; options: WorkerModelOptions }
  | { kind: "predict"; slot: string; frame: Frame; stream?: string }
  | { kind: "predictBatch"; slot: string; frames: readonly Frame[]; stream?: string }
  | { kind: "run"; slot: string; feeds: Record<string, Tensor>; fetches?: readonly string[] }
  | { kind: "runFrame"; slot: string; frame: Frame; fetches?: readonly string[] }
  | { kind: "checkGolden"; slot: string }
  | { kind: "resetStream"; slot: string; stream?: string }
  | { kind: "unload"; slot: string }
  | { kind: "stop" };

export type WorkerEnvelope = WorkerRequest & {
  readonly id: number;
  /** Memory of the frames that the caller wants back. */
  readonly lent: ArrayBuffer[];
};

export type WorkerReply =
  | { id: number; ok: true; value: unknown; returned: ArrayBuffer[] }
  | { id: number; ok: false; error: WireFailure };

/** A coded error as a clone keeps it: `structuredClone` would drop the code. */
export interface WireFailure {
  readonly code: ErrorCode;
  readonly message: string;
}

export function toWireFailure(error: unknown): WireFailure {
  const { code, message } = toFieldloopError(error);
  return { code, message };
}

/** One item of a batch as a clone keeps it. */
export type WireBatchItem = { ok: true; prediction: Prediction } | { ok: false; error: WireFailure };

export function toWireBatchItem(item: BatchItem): WireBatchItem {
  return item.ok ? item : { ok: false, error: toWireFailure(item.error) };
}

export function fromWireBatchItem(item: WireBatchItem): BatchItem {
  return item.ok ? item : { ok: false, error: fromWireFailure(item.error) };
}

export function fromWireFailure(failure: WireFailure): FieldloopError {
  return new FieldloopError(failure.code, failure.message);
}
