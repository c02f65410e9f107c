import type { ErrorCode } from "@fieldloop/protocol";
import type { SessionOptions, Tensor, TensorInfo } from "../backend.js";

/** One question to the child of a trial: open a file, and run it where feeds are given. */
export interface TrialRequest {
  readonly modelPath: string;
  readonly feeds?: Readonly<Record<string, Tensor>>;
  readonly fetches?: readonly string[];
  readonly graphOptimization: NonNullable<SessionOptions["graphOptimization"]>;
  readonly optimizedModelPath?: string;
  /** Default `cpu`. */
  readonly executionProvider?: string;
  /** True asks which provider ran which share of the nodes. */
  readonly shares?: boolean;
  /** False leaves the values of the results in the child. */
  readonly values: boolean;
}

/** What is worth knowing of a tensor without its values. */
export interface TensorSummary {
  readonly type: Tensor["type"];
  readonly dims: readonly number[];
  /** Values that are NaN or infinite. */
  readonly notFinite: number;
}

export interface TrialResult {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly omitted: readonly string[];
  /** Milliseconds from opening to open, and of the run. */
  readonly openMs: number;
  readonly runMs: number | undefined;
  readonly providerShares: Readonly<Record<string, number>> | undefined;
  readonly results: Readonly<Record<string, Tensor>>;
  readonly summaries: Readonly<Record<string, TensorSummary>>;
}

export type TrialReply =
  | { readonly ok: true; readonly result: TrialResult }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };
